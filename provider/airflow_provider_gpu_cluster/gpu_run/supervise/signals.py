"""The signals that a supervisor hands on to the job's main process, as they order nobody to end."""

from __future__ import annotations

import signal

# Those that end a job, those by which the kernel tells a process of its own state, and those of a terminal.
_KEPT = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGSYS,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
}
HANDED_ON = frozenset(int(number) for number in signal.valid_signals() if number not in _KEPT)


def name_of(number: int) -> str:
    """Return the name of a signal: ``USR1``; its number where it has none."""
    return signal.Signals(number).name[3:] if number in set(signal.Signals) else f"signal {number}"


def number_of(text: str) -> int | None:
    """Return the number of a signal: ``USR1``, ``SIGUSR1`` or ``10``; None when there is no such signal."""
    if text.isdigit():
        return int(text) if int(text) in signal.valid_signals() else None
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else None
