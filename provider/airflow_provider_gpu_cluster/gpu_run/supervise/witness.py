"""
A process beside a job that does nothing, and dies of the first TERM.

A scheduler that takes an allocation back sends a TERM to every process in it, but a cancel, or a person, to the
supervisor alone. Only this process tells the one from the other.
"""

from __future__ import annotations

import os
import signal
import time

from ..linux import processes

_NOTICED_WITHIN_S = 0.3


def start_witness() -> int:
    """Start it below this process, and return its id. It ends with this process at the latest."""
    return processes.start_copy(_wait)


def _wait() -> None:
    parent = os.getppid()
    processes.die_with_parent(signal.SIGKILL)
    processes.close_files(keep=())
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            # Other signals tell nothing.
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while os.getppid() == parent:
        time.sleep(3600)


def has_had_term(witness: int) -> bool:
    """Return whether a signal that has just come was for every process."""
    deadline = time.monotonic() + _NOTICED_WITHIN_S
    while not processes.has_ended(witness):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
