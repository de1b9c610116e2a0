"""
Requests to launch that were cancelled, perhaps before they arrived: what arrives later launches nothing.

A task may be ended while its request is on the way, or while its files are being sent. By then there is no attempt that
could be cancelled, and perhaps no directory of the job. So the cancel leaves a record under the request's key. The next
try of the task has another key.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from . import records
from .directories import Root
from .writing import writing

if TYPE_CHECKING:
    from ..protocol.cancellation import CancelRecord

# No request is on its way for that long.
_KEPT_S = 7 * 86400.0


def note_cancelled(root: Root, job_id: str, request_key: str, asked: CancelRecord) -> bool:
    """
    Note that a request is to launch nothing; return False if that was noted before.

    What it has launched is cancelled separately.
    """
    with writing(root.path):
        os.makedirs(_folder(root), mode=0o700, exist_ok=True)
        return records.create_json(_path(root, job_id, request_key), asked)


def cancelled_request(root: Root, job_id: str, request_key: str) -> CancelRecord | None:
    """Return who has cancelled a request; None when nobody has."""
    asked: CancelRecord | None = records.read_json(_path(root, job_id, request_key))
    return asked


def forget_old(root: Root) -> None:
    """Remove the records of requests that cannot arrive any more."""
    with contextlib.suppress(FileNotFoundError), os.scandir(_folder(root)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - _KEPT_S:
                    os.unlink(entry.path)


def _folder(root: Root) -> str:
    return os.path.join(root.own, "cancelled")


def _path(root: Root, job_id: str, request_key: str) -> str:
    # Imported late, as most requests need no hash.
    import hashlib

    name = hashlib.sha256(f"{job_id}\n{request_key}".encode()).hexdigest()[:32]
    return os.path.join(_folder(root), f"{name}.json")
