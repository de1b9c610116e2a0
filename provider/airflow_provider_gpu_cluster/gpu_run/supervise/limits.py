"""The limits that a job is held to while it runs: its time, and its memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import protocol
from ..linux import processes
from .stop import Cause

if TYPE_CHECKING:
    from ..protocol.spec import Spec
    from .job_processes import JobProcesses
    from .killed_workers import KilledWorkers

# Above this it would grow on through its grace; the host's other jobs come first.
_MEMORY_MARGIN = 1.25
# The largest share of time for looking at the job's memory, which slows down the job as well.
_MEMORY_SHARE = 0.05
_MEMORY_PAUSE_S = 10.0


class Limits:
    """
    Looks whether a job is over a limit. It begins now.

    :param killed_workers: sees the processes as well.
    """

    def __init__(self, spec: Spec, job: JobProcesses, killed_workers: KilledWorkers) -> None:
        self._time_s = spec.get("time_limit_s")
        self._warn_before_s = spec.get("warn_before_s")
        self._memory = spec.get("memory_bytes")
        self._job = job
        self._killed_workers = killed_workers
        self._began = time.monotonic()
        self._memory_due = 0.0
        self.peak_memory = 0

    def is_warning_due(self) -> bool:
        """Return whether the time limit is so near that the job is to be warned."""
        if not self._time_s or not self._warn_before_s:
            return False
        return time.monotonic() - self._began >= self._time_s - self._warn_before_s

    def time_is_up(self, at: float | None = None) -> Cause | None:
        """
        Return the cause to stop the job if it has run for too long.

        :param at: at that moment, by the clock of ``time.monotonic()``; None for now.
        """
        ran_s = (time.monotonic() if at is None else at) - self._began
        if not self._time_s or ran_s <= self._time_s:
            return None
        message = f"it ran longer than its time limit of {self._time_s:g} s"
        return Cause(protocol.FAILED, protocol.TIME_LIMIT, message)

    def look_at_memory(self) -> tuple[Cause | None, bool]:
        """Look, if it is time; return the cause to stop the job, and whether that cannot wait for its grace."""
        now = time.monotonic()
        if now < self._memory_due:
            return None, False
        sizes = processes.residents(self._job.tree())
        self._killed_workers.look(sizes)
        memory = processes.memory_bytes(sizes, above=self._memory or self.peak_memory)
        self.peak_memory = max(self.peak_memory, memory)
        took = time.monotonic() - now
        self._memory_due = now + min(took / _MEMORY_SHARE, _MEMORY_PAUSE_S)
        return self._too_much(memory), bool(self._memory) and memory > (self._memory or 0) * _MEMORY_MARGIN

    def over_memory(self) -> Cause | None:
        """Return the cause to stop the job if it has ever used too much memory."""
        self.note_peak()
        return self._too_much(self.peak_memory)

    def note_peak(self) -> int:
        """Return the most memory that it has used so far."""
        self.peak_memory = max(self.peak_memory, self._job.peak_memory)
        return self.peak_memory

    def _too_much(self, memory: int) -> Cause | None:
        limit = self._memory
        if not limit or memory <= limit:
            return None
        message = f"it used {memory / 2**30:.2f} GiB of host memory; its limit is {limit / 2**30:.2f} GiB"
        return Cause(protocol.FAILED, protocol.OUT_OF_MEMORY, message)
