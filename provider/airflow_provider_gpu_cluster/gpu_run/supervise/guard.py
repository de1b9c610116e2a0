"""
The parent of a supervisor: it keeps the GPU leases, and ends what is left when the supervisor is gone.

It is a subreaper (prctl(2)): if the supervisor is killed, the kernel makes the guard the parent of everything that ran
below the supervisor, even if those processes have changed session, group or environment. So no process of a job
outlives its supervisor for longer than a few milliseconds, and the GPUs are free only when nothing runs on them. If the
guard itself is killed, the kernel sends the supervisor a TERM, and the supervisor ends the job and records its loss.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Sequence

from ..gpus.leases import Leases
from ..linux import processes
from ..store.directories import Attempt
from .signals import HANDED_ON
from .unrecorded_end import unrecorded_end

if TYPE_CHECKING:
    from ..protocol.records import EndFacts

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *sorted(HANDED_ON))
_LOOK_S = 1.0
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.5


def stand_guard(pid: int, leases: Leases, keys: Sequence[str], fds: list[int]) -> int:
    """
    Wait for a supervisor, pass on its signals, and end the processes that it has left behind.

    Call with :data:`SIGNALS` blocked.

    :param pid: the supervisor, a child of this process.
    :param keys: of the leased GPUs.
    :param fds: the open files that are their leases; they are closed at the end.
    :return: the supervisor's exit status, as waitpid(2) gives it.
    """
    while True:
        heard = signal.sigtimedwait(SIGNALS, _LOOK_S)
        if heard is not None and heard.si_signo in (signal.SIGTERM, signal.SIGINT):
            processes.send_signal([pid], signal.SIGTERM)
        elif heard is not None and heard.si_signo in HANDED_ON:
            processes.send_signal([pid], heard.si_signo)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if heard is None:
            fds[:] = [leases.keep(key, fd) for key, fd in zip(keys, fds)]
    _end_orphans()
    for fd in fds:
        os.close(fd)
    return status


def _end_orphans() -> None:
    """
    Kill everything below this process.

    A process that cannot be killed (it hangs in a driver, or runs as root now) may still compute, so the GPUs stay
    leased as long as it exists.
    """
    pause = _FIRST_PAUSE_S
    while _reap():
        processes.send_signal(processes.descendants(os.getpid()), signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _reap() -> bool:
    """Reap children that have ended; return False when there are none at all, which the kernel knows for sure."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    except ChildProcessError:
        return False


def record_loss(attempt: Attempt, token: str, status: int, facts: EndFacts, *, is_explained: bool = False) -> None:
    """
    Record that an attempt's supervisor is gone and has left no exit record.

    :param token: of the supervisor's claim, if it has made one.
    :param status: its exit status.
    :param facts: further contents of the record.
    :param is_explained: whether a scheduler may have ended it, and will say so.
    """
    with contextlib.suppress(OSError, ValueError):
        claim = attempt.claimed()
        if claim is None or claim.get("token") != token or attempt.ended() is not None:
            return
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        message = "its supervisor (process {}) was ended by {}".format(claim["pid"], how)
        end = unrecorded_end(attempt, message, may_be_logout=not is_explained)
        facts = {**facts, "pid": claim["pid"], "started_at": claim["at"]}
        if is_explained:
            attempt.note_stop(end["state"], end["reason"], end["message"], facts)
        else:
            attempt.finish(end["state"], end["reason"], end["message"], **facts)
