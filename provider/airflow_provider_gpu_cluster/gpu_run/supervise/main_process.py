"""
Which of a job's processes is the one that its user means: the program, and not the shells and launchers around it.

From ``run.sh`` downwards:

- A shell waits for what it runs in the foreground, and so is passed over. What it has put in the background counts only
  if nothing runs in the foreground (``a & b & wait``). Of several in the foreground, as in a pipeline, those count that
  catch the signal; if none does, the one that was started first.
- A shell that catches the signal (``trap``) is a program of its own. If it waits for what it has put in the
  background, it alone counts. If something runs in its foreground, that comes first, as the shell goes on only when it
  has ended.
- A shell that ignores the signal, with all that it runs, is a program of its own, too.
- A launcher (``torchrun``, ``accelerate launch``, ``conda run``, ``timeout``) is passed over: those that hand a signal
  on send it to the workers as well, or kill what they have launched soon after. Only a launcher whose program cannot
  be told from here (``docker``, ``sudo``) has to hand it on.
- What runs one program after another (``make``, ``xargs``) is passed over as a shell is.
- Every other process is the program. What it has started itself, such as the workers of a data loader, is its own. If
  it does not catch the signal, and has started other programs that do, those come after it.
"""

from __future__ import annotations

import signal
from typing import Container, Iterable, NamedTuple

from ..linux import processes
from ..linux.signal_sets import SignalSets, signal_sets
from .launchers import is_launcher, is_repeater, launched_by
from .shells import has_exit_trap, is_in_background, is_shell, says_trap, shell_catches

_HALT_S = 0.5


class Halted(NamedTuple):
    """A shell that was kept from going on, and whether it wants the signal when what it waits for has ended."""

    pid: int
    catches: bool


class MainProcesses(NamedTuple):
    """
    The processes that a signal is for.

    :param mains: those that count now.
    :param above: for each, the processes around it, the nearest first, without shells.
    :param halted: the shells on the way.
    """

    mains: list[int]
    above: dict[int, list[int]]
    halted: list[Halted]


def find(
    tops: Iterable[int],
    number: int,
    *,
    halt: bool,
    told: Container[int] = (),
    known: Container[int] = (),
) -> MainProcesses:
    """
    Find the processes that a signal is for.

    :param tops: where to begin.
    :param halt: stop the shells that are passed over, so that they do not go on when what they wait for ends. If this
        is False, the shells that catch the signal count as well.
    :param told: processes that have had the signal, and do not count again.
    :param known: shells that were halted before.
    """
    search = _Search(number, halt, told, known)
    for top in tops:
        search.descend(top, [])
    return search.found


class _Search:
    def __init__(self, number: int, halt: bool, told: Container[int], known: Container[int]) -> None:
        self._number = number
        self._halt = halt
        self._told = told
        self._known = known
        self.found = MainProcesses([], {}, [])

    def descend(self, pid: int, above: list[int]) -> None:
        sets = signal_sets(pid)
        if sets is None or pid in self._told or processes.has_ended(pid):
            return
        program = processes.program_of(pid)
        if is_shell(program):
            self._shell(pid, sets, above)
        elif is_repeater(pid, program):
            self._repeater(pid, above)
        elif is_launcher(pid, program):
            children = launched_by(pid, program)
            for child in self._catching(children) or children:
                self.descend(child, [pid, *above])
            if not children:
                self._count(pid, above)
        else:
            self._count(pid, above)

    def _repeater(self, pid: int, above: list[int]) -> None:
        children = self._stopped(pid)
        if children:
            self._wait_for_children(pid, [], above, children)
        elif pid not in self._known:
            self._count(pid, above)

    def _shell(self, pid: int, sets: SignalSets, above: list[int]) -> None:
        children = self._stopped(pid)
        catches = shell_catches(pid, sets, self._number)
        foreground = [child for child in children if not is_in_background(child)]
        if not children and pid in self._known and not catches:
            # What it waited for has ended.
            return
        waits_for_all = foreground or (has_exit_trap(sets) and not says_trap(pid, self._number))
        ignores = sets.ignores(self._number) and not any(map(self._catches_below, children))
        if not children or ignores or (catches and not waits_for_all):
            self._count(pid, above)
        elif catches and not self._halt:
            self._count(pid, above)
            self._chosen(self._asked(foreground, children), above)
        else:
            self._wait_for_children(pid, self._asked(foreground, children), above, children, catches=catches)

    def _asked(self, foreground: list[int], children: list[int]) -> list[int]:
        """Return the children that count: those in the foreground, except for a warning that none of them catches."""
        if self._halt or any(map(self._catches_below, foreground)):
            return foreground
        return children

    def _stopped(self, pid: int) -> list[int]:
        """Return the children of a process, which starts no others from now on if it is halted."""
        if self._halt:
            processes.send_signal([pid], signal.SIGSTOP)
            processes.await_halt(pid, _HALT_S)
        return processes.children_of(pid)

    def _wait_for_children(
        self, pid: int, foreground: list[int], above: list[int], children: list[int], *, catches: bool = False
    ) -> None:
        self.found.halted.append(Halted(pid, catches))
        if foreground:
            self._chosen(foreground, above)
        else:
            for child in children:
                self.descend(child, above)

    def _chosen(self, children: list[int], above: list[int]) -> None:
        """Descend into those that catch the signal; if none does, into the first that can be told."""
        catching = self._catching(children)
        before = len(self.found.mains)
        for child in catching or children:
            self.descend(child, above)
            if not catching and len(self.found.mains) > before:
                return

    def _catching(self, children: list[int]) -> list[int]:
        return [child for child in children if self._catches_below(child)]

    def _catches_below(self, pid: int) -> bool:
        sets = signal_sets(pid)
        if sets is None:
            return False
        program = processes.program_of(pid)
        if is_shell(program):
            # What a shell runs decides.
            if shell_catches(pid, sets, self._number):
                return True
        elif not is_repeater(pid, program) and not is_launcher(pid, program):
            return sets.catches(self._number)
        return any(map(self._catches_below, launched_by(pid, program)))

    def _count(self, pid: int, above: list[int]) -> None:
        if pid not in self.found.above:
            self.found.mains.append(pid)
            self.found.above[pid] = above


def catching(tops: Iterable[int], number: int) -> list[int]:
    """Return the processes that a signal is for and that catch it: nobody dies of it."""
    found = []
    for pid in find(tops, number, halt=False).mains:
        found += [pid] if catches(pid, number) else programs_of(pid, number)
    return found


def programs_of(pid: int, number: int) -> list[int]:
    """Return the other programs that a process has started and that catch a signal, without its own workers."""
    own = processes.words_of(pid)
    found = []
    for child in processes.children_of(pid):
        words = processes.words_of(child)
        is_worker = words == own or any("multiprocessing" in word for word in words[1:])
        if not is_worker and catches(child, number):
            found.append(child)
    return found


def catches(pid: int, number: int) -> bool:
    """Return whether a process does something about a signal itself."""
    sets = signal_sets(pid)
    if sets is None:
        return False
    return shell_catches(pid, sets, number) if is_shell(processes.program_of(pid)) else sets.catches(number)
