"""
The queue of the host: the waiting jobs of all its dispatchers, of all users.

Each dispatcher has a file ``queue-<name>`` in the folder of leases. It keeps the file locked as long as it lives, and
renews its time stamp at every look. So the queued jobs of a dispatcher that was killed or stopped do not count, and
delay nobody.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from typing import Any, Sequence

from .. import protocol
from ..errors import Refused
from ..linux import locks, regular_files
from .schedule import QueuedJob

_PREFIX = "queue-"
_STALE_S = 60.0
_MOST_BYTES = 1 << 22


class HostQueue:
    """
    The queue of the host, as one dispatcher sees it.

    :param folder: of the leases.
    :param name: of the dispatcher; unique on this host.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, _PREFIX + name)
        self._fd: int | None = None
        self._written: list[Any] | None = None
        self.name = name

    def publish(self, queued_jobs: Sequence[QueuedJob]) -> None:
        """
        Show this dispatcher's waiting jobs to all others; call under the mutex.

        :raises Refused: another process uses that name.
        """
        if self._fd is None or not locks.is_current(self._fd, self._path):
            self._open()
        assert self._fd is not None
        values = [list(queued) for queued in queued_jobs]
        # On a full disk the others do not see these jobs. That costs the jobs their place, but no GPUs.
        with contextlib.suppress(OSError):
            if values != self._written:
                self._written = None
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, json.dumps(values).encode(), 0)
                self._written = values
            os.utime(self._fd)

    def _open(self) -> None:
        try:
            fd = locks.lock(self._path, shared=True)
        except OSError as error:
            raise Refused(protocol.GPUS_UNAVAILABLE, f"{self._path} cannot be opened: {error.strerror}") from error
        if fd is None:
            raise Refused(protocol.GPUS_UNAVAILABLE, f"another process has locked {self._path}")
        self._drop()
        self._fd, self._written = fd, None

    def others(self) -> list[QueuedJob]:
        """Return the waiting jobs of all other dispatchers; call under the mutex."""
        return live_queued_jobs(self._folder, besides=os.path.basename(self._path))

    def close(self) -> None:
        """Leave the queue."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._drop()

    def _drop(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def live_queued_jobs(folder: str, besides: str = "") -> list[QueuedJob]:
    """Return the waiting jobs of all live dispatchers; call under the mutex."""
    queued_jobs: list[QueuedJob] = []
    for name in os.listdir(folder):
        if name.startswith(_PREFIX) and name != besides:
            with contextlib.suppress(OSError):
                queued_jobs += _read(os.path.join(folder, name))
    return queued_jobs


def _read(path: str) -> list[QueuedJob]:
    fd = locks.lock(path, create=False)
    if fd is not None:
        # No dispatcher holds it: its dispatcher is dead. It is locked here now, so remove it, if this user may.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)
        return []
    if time.time() - os.lstat(path).st_mtime > _STALE_S:
        return []
    try:
        return [_queued_job(*values) for values in json.loads(regular_files.read(path, _MOST_BYTES))]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def _queued_job(
    job_id: str, rank: int, submitted: float, gpus: int, gpu_type: str | None, time_limit_s: float | None, owner: str
) -> QueuedJob:
    """Return a queued job if all its values are valid; raise otherwise."""
    queued = QueuedJob(
        job_id=str(job_id),
        rank=int(rank),
        submitted=float(submitted),
        gpus=int(gpus),
        gpu_type=None if gpu_type is None else str(gpu_type),
        time_limit_s=None if time_limit_s is None else float(time_limit_s),
        owner=str(owner),
    )
    numbers = (queued.submitted, queued.time_limit_s or 0.0)
    if queued.gpus < 1 or not 0 <= queued.rank < len(protocol.PRIORITIES) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"no queued job: {queued}")
    return queued
