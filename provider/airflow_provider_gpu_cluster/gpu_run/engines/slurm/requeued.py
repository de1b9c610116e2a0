"""Jobs that Slurm has put back into its queue, be it for a preemption, a failed node, or because somebody said so."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ... import protocol
from ...errors import Refused
from ...store.directories import Attempt
from ...store.next_attempt import follow, is_followed
from . import commands, words
from .batch import Batch, note_requeued
from .ends import UNKNOWN, Held, end_in, finish, output_of_run
from .runner import run

if TYPE_CHECKING:
    from ...protocol.records import Claim

_ASK_S = 10.0


def settle_requeued(
    attempt: Attempt,
    claim: Claim,
    job: str,
    told: words.State | None = None,
    held: Held = UNKNOWN,
    *,
    runs_again: bool = False,
) -> None:
    """
    End an attempt whose job Slurm has requeued: its code has begun, and must not begin again as this attempt.

    If another attempt follows by itself, it takes over that job, which keeps its place in the queue. If none does, the
    job is of no use.

    :param claim: of the run that is over.
    :param told: how that run ended, if the accounting has said so.
    :param held: from when to when it had its nodes, likewise.
    :param runs_again: whether the job does not wait any more.
    """
    why = end_in(output_of_run(Batch.of(attempt), attempt, claim)) or told
    if why is None or why.reason not in (protocol.NODE_FAILURE, protocol.PREEMPTED):
        why = words.STATES["REQUEUED"]
    message = words.REQUEUED if not why.message or why.message == words.REQUEUED else f"{why.message}; {words.REQUEUED}"
    note_requeued(attempt, job)
    finish(attempt, claim, protocol.FAILED, why.reason or protocol.PREEMPTED, message, held)
    attempt.event("requeued", slurm_job=job)
    follow(attempt.job)
    if runs_again:
        return
    with contextlib.suppress(Refused):
        if not is_followed(attempt.ended()):
            run(commands.cancel([job]), timeout_s=_ASK_S)
        else:
            # Somebody else may have made it.
            _keep_off(attempt.job.attempt(attempt.number + 1), job)


def _keep_off(attempt: Attempt, job: str) -> None:
    """Keep a waiting job off the nodes that have failed, if there are enough others."""
    recovery = attempt.request().get("recovery")
    nodes = list(recovery.get("exclude_nodes", ())) if recovery else []
    if not nodes:
        return
    shown = run(commands.details(job), timeout_s=_ASK_S).output
    if commands.detail(shown, "ReqNodeList") not in (None, "(null)"):
        # It asks for nodes by their names.
        return
    there = run(commands.node_states(partition=commands.detail(shown, "Partition")), timeout_s=_ASK_S).output
    others = set(commands.named_nodes(there)) - set(nodes)
    if len(others) < (attempt.request()["spec"].get("nodes") or 1):
        attempt.event("nodes_not_excluded", nodes=nodes)
        return
    excluded = commands.detail(shown, "ExcNodeList")
    theirs = [] if excluded in (None, "(null)") else [excluded]
    run(commands.exclude(job, [*theirs, *nodes]), timeout_s=_ASK_S)
