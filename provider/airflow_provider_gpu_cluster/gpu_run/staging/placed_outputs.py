"""Give outputs that were brought along from another cluster their place in a job's directory."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Mapping, cast

from ..protocol.files import OUTPUTS
from ..store.continuing import note_carried
from ..store.settling import settle
from ..store.writing import remove_tree, writing

if TYPE_CHECKING:
    from ..protocol.carrying import CarriedUpload
    from ..protocol.inputs import UploadInput
    from ..store.directories import JobDirectory


def put_outputs(job: JobDirectory, wanted: UploadInput, ready: str) -> None:
    """
    Give a folder the place of the job's outputs. What an attempt has left there before is kept with that attempt.

    If another request has launched the job meanwhile, its outputs stay.
    """
    settle(job)
    with job.lock(), writing(job.path):
        attempts = job.attempts()
        if attempts and attempts[-1].ended() is None:
            return
        there = job.at(OUTPUTS)
        if attempts and os.path.lexists(there) and not os.path.lexists(attempts[-1].at(OUTPUTS)):
            os.rename(there, attempts[-1].at(OUTPUTS))
        elif os.path.lexists(there):
            # No attempt has written there since it was brought along.
            with contextlib.suppress(FileNotFoundError):
                remove_tree(there)
        _date(ready, cast("CarriedUpload", wanted).get("modified_ns", {}))
        os.rename(ready, there)
        note_carried(job, outputs=wanted["digest"])


def _date(folder: str, modified_ns: Mapping[str, int]) -> None:
    """Let files say that they were last modified when they were on the old cluster, where the file system can."""
    for path, moment in modified_ns.items():
        if not os.path.isabs(path) and ".." not in path.split("/"):
            with contextlib.suppress(OSError, OverflowError, TypeError, ValueError):
                os.utime(os.path.join(folder, path), ns=(moment, moment), follow_symlinks=False)
