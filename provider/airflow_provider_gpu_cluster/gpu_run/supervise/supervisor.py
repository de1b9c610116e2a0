"""
Two processes per running attempt: the supervisor runs run.sh, keeps its output, and records how it ended; its parent,
the guard, keeps the GPU leases and outlives it.

Both are subreapers (prctl(2)). So whatever the job leaves behind stays below the supervisor, or below the guard if the
supervisor is killed, and can be found and ended.
"""

from __future__ import annotations

import os
import signal
from functools import partial

from ..gpus.leases import leases_of
from ..linux import processes
from ..store.directories import Attempt
from . import guard
from .allocation import Allocation
from .attempt_run import AttemptRun
from .orphan import end_if_orphaned
from .usage_sampler import start_sampler
from .witness import start_witness


def supervise(attempt: Attempt, allocation: Allocation, *, waited: bool = False) -> None:
    """
    Run an attempt from claim to exit record, and return when all its processes have ended and its GPUs are free.

    :param waited: this process has claimed the attempt before, in order to wait.
    """
    fds = allocation.fds
    for fd in fds:
        os.set_inheritable(fd, False)
    run = AttemptRun(attempt, allocation)
    # Before this process becomes a subreaper, which would make it the sampler's parent.
    run.sampler = start_sampler(attempt, allocation)
    processes.become_subreaper()
    if allocation.is_scheduled:
        run.witness = start_witness()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, guard.SIGNALS)
    pid = processes.start_copy(partial(_begin, run, waited))
    run.sampler.hang_up()
    try:
        leases = leases_of(run.request["settings"])
        status = guard.stand_guard(pid, leases, [gpu["key"] for gpu in allocation.gpus], fds)
        run.sampler.kill()
        guard.record_loss(attempt, run.token, status, run.facts(), is_explained=allocation.is_explained)
    finally:
        # What this process starts afterwards would inherit the blocked signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(run: AttemptRun, waited: bool) -> None:
    """Run as the supervisor, below the guard."""
    processes.become_subreaper()
    processes.die_with_parent(signal.SIGTERM)
    if os.getppid() != run.guard:
        # It was killed before the kernel knew that this process wants to hear of it.
        return
    # A cancel looks for the claim and then sends a signal, so listening begins before the claim.
    run.listen()
    if not end_if_orphaned(run.attempt, run.request) and run.claim(waited):
        run.to_the_end()
