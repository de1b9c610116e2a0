"""How long the inputs of a job took: noted in the job as they come, and in the attempt for which they came."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Iterator

from . import records

NOTE = "staging.json"
_MOST_BYTES = 1 << 12


def note_staging(job: str, seconds: float) -> None:
    """
    Note that inputs of a job's next attempt took so long, besides what is noted already.

    :param job: the job's directory.
    """
    path = os.path.join(job, ".job", NOTE)
    # The books are not worth a failed submit.
    with contextlib.suppress(OSError):
        records.write_json(path, {"seconds": round(staging_s(path) + seconds, 3)}, sync=False)


@contextlib.contextmanager
def staging_noted(job: str) -> Iterator[None]:
    """
    Note how long a block takes, if it has put an input in place.

    :param job: the job's directory.
    """
    began, before = time.monotonic(), _stamp(job)
    yield
    if _stamp(job) != before:
        note_staging(job, time.monotonic() - began)


def take_staging(job: str, attempt: str) -> None:
    """
    Make what is noted in the job that of an attempt that has just been made.

    :param job: the job's directory.
    :param attempt: the attempt's folder.
    """
    with contextlib.suppress(OSError):
        os.rename(os.path.join(job, ".job", NOTE), os.path.join(attempt, NOTE))


def staging_s(path: str) -> float:
    """Return what a note says; 0 when there is none, or the job has spoilt it."""
    with contextlib.suppress(OSError, ValueError):
        note: Any = records.read_json(path, _MOST_BYTES)
        if note is not None and isinstance(note.get("seconds"), (int, float)):
            return float(note["seconds"])
    return 0.0


def _stamp(job: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(os.path.join(job, ".job", "inputs.json")).st_mtime_ns
    return 0
