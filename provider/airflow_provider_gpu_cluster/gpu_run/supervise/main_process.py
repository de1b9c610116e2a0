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
- A launcher that does not catch the signal (``conda run``, ``accelerate launch``, ``time``) is passed over. One that
  catches it (``torchrun``, ``mpirun``, ``timeout``) hands it on.
- Every other process is the program. What it has started itself, such as the workers of a data loader, is its own. If
  it does not catch the signal, and has started other programs that do, those come after it.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Container, Iterable, NamedTuple

from ..linux import processes
from ..linux.signal_sets import SignalSets, signal_sets

_SHELLS = frozenset(("bash", "sh", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "busybox", "fish", "tcsh", "csh"))
# They run one program after another, as a shell does.
_REPEATERS = frozenset(("xargs", "find", "watch"))
_LAUNCHERS = frozenset(
    (
        *("time", "timeout", "nice", "ionice", "stdbuf", "setsid", "nohup", "numactl", "taskset", "chrt", "unshare"),
        *("conda", "mamba", "micromamba", "uv", "uvx", "pixi", "poetry", "pipenv", "hatch"),
        *("accelerate", "accelerate-launch", "torchrun", "deepspeed", "mpirun", "mpiexec", "srun"),
        *("apptainer", "singularity", "starter", "starter-suid", "enroot", "docker", "podman"),
        *("nsys", "ncu", "nvprof", "strace", "perf", "script", "unbuffer", "xvfb-run", "sudo", "make", "gmake"),
    )
)
# These catch signals of users for themselves, and these take signals by sigwait(3).
_HALF_DEAF = frozenset(("make", "gmake", "xargs"))
_WAITING = frozenset(("srun",))
_LAUNCHING_MODULES = frozenset(
    (
        *("accelerate", "accelerate.commands.launch", "accelerate.commands.accelerate_cli", "conda"),
        *(
            "torch.distributed.run",
            "torch.distributed.launch",
            "deepspeed.launcher.runner",
            "deepspeed.launcher.launch",
        ),
    )
)
_PYTHON = re.compile(r"^(?:python|pypy)[0-9.]*$")
# Options of Python that have a value of their own.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
# Shells catch these for themselves.
_OF_SHELLS = (signal.SIGINT, signal.SIGCHLD, signal.SIGWINCH)
# With a trap for EXIT, bash catches every signal that would end it, these among them.
_OF_EXIT_TRAP = (signal.SIGXCPU, signal.SIGVTALRM)
_HALT_S = 0.5
_SCRIPT_BYTES = 1 << 18


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
        if program in _SHELLS:
            self._shell(pid, sets, above)
        elif program in _REPEATERS and not _hands_on(program, sets, self._number):
            self._wait_for_children(pid, [], above, self._stopped(pid))
        elif is_launcher(pid, program) and not _hands_on(program, sets, self._number):
            children = processes.children_of(pid)
            if children:
                self._chosen(children, [pid, *above])
            else:
                self._count(pid, above)
        else:
            self._count(pid, above)

    def _shell(self, pid: int, sets: SignalSets, above: list[int]) -> None:
        children = self._stopped(pid)
        catches = shell_catches(pid, sets, self._number)
        foreground = [child for child in children if not _is_in_background(child)]
        if not children and pid in self._known and not catches:
            # What it waited for has ended.
            return
        waits_for_all = foreground or (_has_exit_trap(sets) and not _says_trap(pid, self._number))
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
        catching = [child for child in children if self._catches_below(child)]
        before = len(self.found.mains)
        for child in catching or children:
            self.descend(child, above)
            if not catching and len(self.found.mains) > before:
                return

    def _catches_below(self, pid: int) -> bool:
        sets = signal_sets(pid)
        if sets is None:
            return False
        program = processes.program_of(pid)
        if program in _SHELLS:
            # What a shell runs decides.
            is_asked = shell_catches(pid, sets, self._number)
        elif program in _REPEATERS or is_launcher(pid, program):
            is_asked = _hands_on(program, sets, self._number)
        else:
            return sets.catches(self._number)
        return is_asked or any(map(self._catches_below, processes.children_of(pid)))

    def _count(self, pid: int, above: list[int]) -> None:
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


def _hands_on(program: str, sets: SignalSets, number: int) -> bool:
    """Return whether a launcher hands a signal on to what it has launched."""
    if program in _HALF_DEAF and number in (signal.SIGUSR1, signal.SIGUSR2):
        return False
    # Others that block a signal only want to be left alone.
    return sets.catches(number) if program in _WAITING else bool(sets.caught >> (number - 1) & 1)


def has_waiting_shells(pids: Iterable[int], number: int) -> bool:
    """Return whether there are shells among some processes that a signal ends."""
    for pid in pids:
        sets = signal_sets(pid) if processes.program_of(pid) in _SHELLS else None
        if sets is not None and not sets.ignores(number) and not shell_catches(pid, sets, number):
            return True
    return False


def catches(pid: int, number: int) -> bool:
    """Return whether a process does something about a signal itself."""
    sets = signal_sets(pid)
    if sets is None:
        return False
    return shell_catches(pid, sets, number) if processes.program_of(pid) in _SHELLS else sets.catches(number)


def shell_children(pid: int) -> list[int]:
    """Return what a shell has started and still runs; an empty list for any other process."""
    return processes.children_of(pid) if processes.program_of(pid) in _SHELLS else []


def shell_catches(pid: int, sets: SignalSets, number: int) -> bool:
    """Return whether a shell has a trap for a signal, or for its own exit, which that signal brings about."""
    if number in _OF_SHELLS:
        return sets.catches(number) and _says_trap(pid, number)
    return sets.catches(number)


def _has_exit_trap(sets: SignalSets) -> bool:
    return all(sets.catches(number) for number in _OF_EXIT_TRAP)


def _says_trap(pid: int, number: int) -> bool:
    """Return whether a shell's script sets a trap for a signal, as far as it can be read."""
    name = signal.Signals(number).name[3:] if number in set(signal.Signals) else str(number)
    return re.search(rf"\btrap\b.*\b(?:SIG)?(?:{name}|{number})\b", _script_of(pid), re.IGNORECASE) is not None


def _script_of(pid: int) -> str:
    words = processes.words_of(pid)
    text = "\n".join(words)
    # Bash keeps its script open under this number; other shells name it on their command line.
    for path in (f"/proc/{pid}/fd/255", *(os.path.join(f"/proc/{pid}/cwd", word) for word in words[1:2])):
        try:
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    return text + file.read(_SCRIPT_BYTES)
        except OSError:
            continue
    return text


def _is_in_background(pid: int) -> bool:
    """Return whether a shell has put a process in the background, where it ignores what a terminal sends at first."""
    sets = signal_sets(pid)
    return sets is not None and (sets.ignores(signal.SIGINT) or sets.ignores(signal.SIGQUIT))


def is_launcher(pid: int, program: str) -> bool:
    """
    Return whether a process only starts another program and waits for it.

    :param program: the program that it runs.
    """
    words = processes.words_of(pid)
    name = os.path.basename(words[0]) if words else ""
    if program in _LAUNCHERS or name in _LAUNCHERS:
        return True
    if not _PYTHON.match(program):
        return False
    following = iter(words[1:])
    for word in following:
        if word == "-m":
            return next(following, "") in _LAUNCHING_MODULES
        if word == "-c":
            return False
        if word in _WITH_VALUE:
            next(following, "")
        elif not word.startswith("-"):
            return os.path.basename(word) in _LAUNCHERS
    return False
