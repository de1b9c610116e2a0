"""
Finds a job that hangs: its ``hang_timeout``.

It hangs when for that long it has printed nothing, saved nothing (in ``outputs``, or as progress) and used next to no
processor time. Threads that look once a second whether there is something to do need not end the silence, so a small
share of one processor does not count. Before it is called hung, it is looked at more closely: a process that is
stopped, a server that waits for somebody to connect, and a GPU that computes are no hang.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Callable, Sequence

from .. import protocol
from ..gpus.utilization import busiest_percent
from ..linux.activity import Activity, activity
from ..linux.waiting_servers import is_waiting_server
from ..recovery.words import duration
from .saved_files import saved_ago_s
from .stop import Cause

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu
    from ..protocol.spec import Spec
    from ..store.directories import JobDirectory

_LONGEST_PAUSE_S = 30.0
_LOOKS = 20
_LEAST_CPU_SHARE = 0.005
# The kernel counts processor time in ticks of a hundredth of a second.
_TICKS_S = 0.02
_LEAST_IO_BYTES_PER_S = 16384


class HangLimit:
    """
    Tells when a running job hangs.

    :param gpus: those that it has on this host.
    :param tree: returns its processes.
    :param gpu_percent: returns how busy the busiest of them was lately; None where that is not known.
    :param clock: tells seconds.
    """

    def __init__(
        self,
        job: JobDirectory,
        spec: Spec,
        gpus: Sequence[LeasedGpu],
        tree: Callable[[], set[int]],
        *,
        gpu_percent: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._timeout_s = spec.get("hang_timeout_s")
        self._gpus = gpus
        self._tree = tree
        self._gpu_percent = gpu_percent
        self._clock = clock
        self._since = self._looked_at = clock()
        self._pause_s = 0.0
        self._printed: list[tuple[int, int] | None] = []
        self._activity = Activity(0.0, 0, False)

    def reached(self) -> Cause | None:
        """Return the cause to stop the job if it hangs."""
        now = self._clock()
        if self._timeout_s is None or now < self._looked_at + self._pause_s:
            return None
        past_s, self._looked_at = now - self._looked_at, now
        # Who was stopped for a while, together with the job, has not looked.
        has_missed = self._pause_s and past_s > 3 * self._pause_s + 1
        self._pause_s = min(_LONGEST_PAUSE_S, self._timeout_s / _LOOKS)
        if self._has_moved(past_s) or has_missed:
            self._since = now
        quiet_s = now - self._since
        if quiet_s < self._timeout_s:
            return None
        alive_s = self._silent_life_s()
        if alive_s < self._timeout_s:
            self._since = now - alive_s
            return None
        message = f"it hung: it printed nothing, saved nothing and used no processor time for {duration(quiet_s)}"
        return Cause(protocol.FAILED, protocol.HANG, message)

    def _has_moved(self, past_s: float) -> bool:
        """Return whether the job has printed or computed anything since the last look."""
        before, used = self._printed, self._activity
        self._printed = [_stamp(self._job.at("logs", name)) for name in ("training.log", "error.log", "progress.jsonl")]
        self._activity = activity(self._tree())
        # Sums get smaller when a process has ended.
        cpu_s, io_bytes = abs(self._activity.cpu_s - used.cpu_s), abs(self._activity.io_bytes - used.io_bytes)
        return (
            self._printed != before
            or self._activity.is_stopped
            or cpu_s > _LEAST_CPU_SHARE * past_s + _TICKS_S
            or io_bytes > _LEAST_IO_BYTES_PER_S * max(past_s, 1.0)
        )

    def _silent_life_s(self) -> float:
        """Return how long ago it gave the last sign of life that is only looked for when there is no other."""
        if any(map(is_waiting_server, self._tree())):
            return 0.0
        percent = self._gpu_percent()
        if (busiest_percent(self._gpus) if percent is None else percent) > 0:
            return 0.0
        return saved_ago_s(self._job)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        # A job may keep its output elsewhere, and put a link here.
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
