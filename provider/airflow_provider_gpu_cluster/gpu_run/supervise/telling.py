"""
Tell a job's processes to end, in an order in which each can still do its work.

First the program, see :mod:`.main_process`; when it has ended, what runs beside it in the background; then the shells
that have a trap for the signal. Shells that wait are stopped meanwhile, so that they neither die of anything nor go on
with their next line. The workers of a program are not told: it ends them itself, or they are left over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Iterable

from ..linux import processes
from .main_process import catches, find, programs_of
from .shells import has_waiting_shells, shell_children

if TYPE_CHECKING:
    from .job_processes import JobProcesses

# How long what has lost its program may take to end by itself, such as the other end of a pipeline.
_SETTLE_S = 1.0
_LAUNCHER_S = 4.0


class Telling:
    """
    One stop of a job, from the first signal until nobody is left who should get it.

    :param job: the job's processes.
    :param number: the signal.
    :param to_all: send it to every process at once.
    :param is_told: somebody else has just sent it to every process.
    """

    def __init__(self, job: JobProcesses, number: int, *, to_all: bool = False, is_told: bool = False) -> None:
        self._job = job
        self._number = number
        self._is_told = is_told
        self._told: dict[int, int | None] = {}
        self._halted: dict[int, bool] = {}
        self._following: list[int] = []
        self._settle_until: float | None = None
        # With each, the processes around it.
        self._catching: list[list[int]] = []
        self._others: list[list[int]] = []
        self._shells: list[int] = []
        self._launchers: set[int] = set()
        if to_all or is_told:
            self._tell_all()
        else:
            self._tell_next()

    @property
    def told(self) -> list[int]:
        """The processes that were told."""
        return list(self._told)

    def is_over(self) -> bool:
        """Go on; return whether everybody who was told has ended, and nobody else is to be told."""
        alive = [pid for pid, start in self._told.items() if _is_same(pid, start)]
        self._note_ends()
        if alive:
            self._settle_until = None
            return False
        now = time.monotonic()
        if self._settle_until is None:
            self._settle_until = now + _SETTLE_S
        others = [pid for pid in self._job.tree() if pid not in self._halted and not processes.has_ended(pid)]
        # A launcher knows how its program has ended, and says so when it has cleaned up.
        longer_s = _LAUNCHER_S if self._launchers.intersection(others) else 0.0
        if others and now < self._settle_until + longer_s:
            return False
        if self._is_told or not self._tell_next():
            return True
        self._settle_until = None
        return False

    def end_shells(self) -> None:
        """Kill the shells that were kept from going on."""
        processes.send_signal(self._halted, signal.SIGKILL)

    def status(self) -> int | None:
        """Return the exit status of the first one who caught the signal, or of what is around it; None when unknown."""
        self._note_ends()
        # A shell that has a trap chooses an exit code itself, if it does not die of the signal.
        chosen = [self._job.ends.get(pid) for pid in reversed(self._shells)]
        exited = [status for status in chosen if status is not None and os.WIFEXITED(status)]
        known = [self._job.ends.get(pid) for path in [*self._catching, *self._others] for pid in path]
        return next((status for status in [*exited, *known] if status is not None), None)

    def _note_ends(self) -> None:
        """Note the ends of those that a shell has not waited for yet, which it does in its own way."""
        for pid in self._told:
            if self._job.ends.get(pid) is None:
                self._job.ends[pid] = processes.status_of_zombie(pid)

    def _tell_all(self) -> None:
        if self._is_told:
            self._await_shells()
        found = find(self._job.tops(), self._number, halt=False)
        self._note(found.mains, found.above)
        if not self._is_told:
            _send(self._job.tree(), self._number)
        self._is_told = True

    def _await_shells(self) -> None:
        """Wait until those have ended that die of the signal, and have left their programs to this process."""
        deadline = time.monotonic() + _SETTLE_S
        while has_waiting_shells(self._job.tree(), self._number) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._job.reap()

    def _tell_next(self) -> bool:
        """Tell those whose turn it is; return False when there is nobody."""
        tops = [*self._job.tops(), *self._following]
        found = find(tops, self._number, halt=True, told=self._told, known=self._halted)
        self._halted.update(found.halted)
        mains = found.mains
        if not mains:
            # The innermost shell comes first. It waits for shells that were halted below it.
            mains = [pid for pid, catches in found.halted if catches][-1:]
            for pid in mains:
                processes.send_signal(processes.descendants(pid).intersection(self._halted), signal.SIGKILL)
        if not mains:
            return False
        for pid in mains:
            if self._halted.pop(pid, None) is not None:
                self._shells.append(pid)
            self._following += shell_children(pid)
            if not catches(pid, self._number):
                self._following += programs_of(pid, self._number)
        self._note(mains, found.above)
        _send(mains, self._number)
        return True

    def _note(self, mains: list[int], above: dict[int, list[int]]) -> None:
        for pid in mains:
            start = None
            with contextlib.suppress(OSError):
                start = processes.start_ticks(pid)
            self._told[pid] = start
            path = [pid, *above.get(pid, ())]
            self._launchers.update(path[1:])
            (self._catching if catches(pid, self._number) else self._others).append(path)
            self._job.ends.update((one, self._job.ends.get(one)) for one in path)


def _send(pids: Iterable[int], number: int) -> None:
    processes.send_signal(pids, number)
    # A stopped process does not handle a signal.
    processes.send_signal(pids, signal.SIGCONT)


def _is_same(pid: int, start: int | None) -> bool:
    """Return whether a process still lives."""
    try:
        return start is not None and processes.start_ticks(pid) == start
    except OSError:
        return True
