"""
Whether the kernel has killed a process of a job for lack of memory, when the job itself goes on, or ends by itself.

The kernel's counts say that it has killed a process, not whose: a control group may hold other jobs, and the host holds
everybody's. So more must speak for it: a process of the job is gone since the last look, the job ended soon after a
kill in its control group, or its output says that one was killed.
"""

from __future__ import annotations

import re
import time
from typing import Mapping

from ..linux.memory_kills import MemoryKillCounter, MemoryKills

# The kernel kills large processes. Small ones, of which a script may start many, come and go.
_LARGE_BYTES = 8 << 20
# A parent notices that its worker is gone, and ends, within this; on a busy machine it takes seconds.
_PARENT_ENDS_WITHIN_S = 10.0
_SIGNS = re.compile(
    r"SIGKILL|\b[Ss]ignal:? ?\(?9\b|\b[Ee]xit ?code:? ?\(?-9\b|: Killed\b|\d\s+Killed\s"
    r"|terminated abruptly|\b(?:exited|died) unexpectedly"
)


class KilledWorkers:
    """
    Compares the kernel's counts with what becomes of the job's processes.

    Make it before the job starts.
    """

    def __init__(self) -> None:
        self._counter = MemoryKillCounter()
        self._before = self._last = self._counter.read()
        self._large: set[int] = set()
        self._is_seen = False
        self._near_rose_at: float | None = None

    def look(self, sizes: Mapping[int, int]) -> None:
        """
        Look whether a kill was counted since the last look, and a process is gone.

        :param sizes: the memory of each process of the job, in bytes.
        """
        now = self._counter.read()
        if _rose(self._last, now) and self._large.difference(sizes):
            self._is_seen = True
        if now.near > self._last.near:
            self._near_rose_at = time.monotonic()
        self._last = now
        self._large = {pid for pid, size in sizes.items() if size >= _LARGE_BYTES}

    def has_counted(self) -> bool:
        """Return whether the kernel has killed any process since the start of the job, perhaps of somebody else."""
        return _rose(self._before, self._counter.read())

    def is_likely(self, words: str) -> bool:
        """
        Return whether it has killed a process of a job that has ended.

        :param words: the end of the job's output.
        """
        now = self._counter.read()
        if not _rose(self._before, now):
            return False
        if self._is_seen or now.near > self._last.near or _SIGNS.search(words) is not None:
            return True
        return self._near_rose_at is not None and time.monotonic() - self._near_rose_at < _PARENT_ENDS_WITHIN_S


def _rose(before: MemoryKills, now: MemoryKills) -> bool:
    return now.near > before.near or now.anywhere > before.anywhere
