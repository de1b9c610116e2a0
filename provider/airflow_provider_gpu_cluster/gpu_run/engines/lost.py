"""Supervisors on this host: record the end of those that are gone and have left no exit record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..linux import processes
from ..store import records
from ..store.claims import run_facts
from ..store.directories import Attempt
from ..supervise.unrecorded_end import unrecorded_end

if TYPE_CHECKING:
    from ..protocol.records import Claim

_KILL_TIMEOUT_S = 5.0


def unseen(claim: Claim) -> str:
    """Return, for a message, why it cannot be determined whether the process of a claim lives."""
    here = processes.hostname()
    if claim["host"] != here:
        return "it runs on {}, this is {}; point the connection there".format(claim["host"], here)
    why = processes.why_unseen(claim["pid"]) or "its claim does not say when the process started"
    return "whether its process {} on {} still runs cannot be determined: {}".format(claim["pid"], here, why)


def settle_lost_supervisor(attempt: Attempt, claim: Claim) -> None:
    """
    Record that an attempt's supervisor vanished before its end.

    Its guard has killed the job; if the guard is gone too, this does it.

    :param claim: of that supervisor, which was a process of this host.
    """
    was_rebooted = claim["boot"] != processes.boot_id()
    message = "the host was rebooted" if was_rebooted else f"its supervisor (process {claim['pid']}) was killed"
    if not was_rebooted:
        processes.kill_with_environment(claim["token"], _KILL_TIMEOUT_S)
    end = unrecorded_end(attempt, message, may_be_logout=not was_rebooted)
    facts = run_facts(claim)
    if was_rebooted:
        # Nobody may have looked for days.
        facts["released_at"] = records.time_of(_last_sample_at(attempt) or processes.booted_at())
    attempt.finish(end["state"], end["reason"], end["message"], **facts)


def _last_sample_at(attempt: Attempt) -> float | None:
    """Return when the use of its GPUs was last looked at, in seconds since the epoch; None if that never was."""
    try:
        return os.lstat(attempt.at("usage.json")).st_mtime
    except OSError:
        return None
