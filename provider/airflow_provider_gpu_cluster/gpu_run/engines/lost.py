"""Record the end of supervisors on this host that are gone and have left no exit record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import protocol
from ..linux import processes
from ..store.claims import run_facts
from ..store.directories import Attempt

if TYPE_CHECKING:
    from ..protocol.records import Claim

_KILL_TIMEOUT_S = 5.0


def settle_lost_supervisor(attempt: Attempt, claim: Claim) -> None:
    """
    Record that an attempt's supervisor vanished before its end.

    Its guard has killed the job; if the guard is gone too, this does it.

    :param claim: of that supervisor, which was a process of this host.
    """
    if claim["boot"] != processes.boot_id():
        message = "the host was rebooted"
    else:
        message = f"its supervisor (process {claim['pid']}) was killed"
        processes.kill_with_environment(claim["token"], _KILL_TIMEOUT_S)
    attempt.finish(protocol.LOST, protocol.REASON_LOST, message, **run_facts(claim))
