"""Shells: what they have a trap for, and what they have put in the background."""

from __future__ import annotations

import os
import re
import signal
from typing import Iterable

from ..linux import processes
from ..linux.signal_sets import SignalSets, signal_sets

_SHELLS = frozenset(("bash", "sh", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "busybox", "fish", "tcsh", "csh"))
# Shells catch these for themselves.
_OF_SHELLS = (signal.SIGINT, signal.SIGCHLD, signal.SIGWINCH)
# With a trap for EXIT, bash catches every signal that would end it, these among them.
_OF_EXIT_TRAP = (signal.SIGXCPU, signal.SIGVTALRM)
_SCRIPT_BYTES = 1 << 18


def is_shell(program: str) -> bool:
    """Return whether a program is a shell."""
    return program in _SHELLS


def shell_catches(pid: int, sets: SignalSets, number: int) -> bool:
    """Return whether a shell has a trap for a signal, or for its own exit, which that signal brings about."""
    # A shell blocks signals while it starts something, which says nothing about a trap.
    has_handler = sets.has_handler(number)
    return has_handler and (number not in _OF_SHELLS or says_trap(pid, number))


def has_exit_trap(sets: SignalSets) -> bool:
    """Return whether a shell has a trap for its own exit."""
    return all(sets.has_handler(number) for number in _OF_EXIT_TRAP)


def says_trap(pid: int, number: int) -> bool:
    """Return whether a shell's script sets a trap for a signal, as far as it can be read."""
    name = signal.Signals(number).name[3:] if number in set(signal.Signals) else str(number)
    return re.search(rf"\btrap\b.*\b(?:SIG)?(?:{name}|{number})\b", _script_of(pid), re.IGNORECASE) is not None


def is_in_background(pid: int) -> bool:
    """Return whether a shell has put a process in the background, where it ignores what a terminal sends at first."""
    sets = signal_sets(pid)
    return sets is not None and (sets.ignores(signal.SIGINT) or sets.ignores(signal.SIGQUIT))


def shell_children(pid: int) -> list[int]:
    """Return what a shell has started and still runs; an empty list for any other process."""
    return processes.children_of(pid) if is_shell(processes.program_of(pid)) else []


def has_waiting_shells(pids: Iterable[int], number: int) -> bool:
    """Return whether there are shells among some processes that a signal ends."""
    for pid in pids:
        sets = signal_sets(pid) if is_shell(processes.program_of(pid)) else None
        if sets is not None and not sets.ignores(number) and not shell_catches(pid, sets, number):
            return True
    return False


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
