"""Record ends of attempts that their supervisors did not record, from what Slurm says and what the job left."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from ... import protocol
from ...errors import Refused
from ...linux import regular_files
from ...store import records
from ...store.claims import run_facts
from ...store.directories import Attempt
from ...supervise.unrecorded_end import unrecorded_end
from ...verdict import log_ends
from . import commands, words
from .batch import Batch
from .commands import Row
from .runner import run
from .submitter import end_unstarted

if TYPE_CHECKING:
    from ...protocol.records import Claim, EndFacts

_ASK_S = 10.0


class Held(NamedTuple):
    """From when to when a run of a job had its nodes, in seconds since the epoch; None where Slurm does not say it."""

    since: float | None
    until: float | None


UNKNOWN = Held(None, None)


def settle_unstarted(attempt: Attempt, batch: Batch, row: Row) -> None:
    """Record the end of an attempt that has not begun and never will."""
    state = words.STATES[row.state]
    if state.state is not None and state.reason is not None:
        end_unstarted(attempt, state.state, state.reason, f"{state.message} before it began (job {row.id})")
        return
    output = log_ends.read_end(batch.output_of(attempt), log_ends.TAIL_BYTES).decode("utf-8", "replace").strip()
    last = output.splitlines()[-1] if output else row.reason
    message = f"its supervisor ended before it could begin (job {row.id}, {row.state}): {last}"
    end_unstarted(attempt, protocol.FAILED, protocol.LAUNCH_FAILED, message)


def settle_ended(
    attempt: Attempt, batch: Batch, claim: Claim, job: str, state: words.State, held: Held = UNKNOWN
) -> None:
    """
    Record an end that the supervisor could not record, from what Slurm or the supervisor's last note says.

    :param job: how to name its Slurm job in the message.
    :param state: how that job has ended.
    :param held: from when to when it had its nodes.
    """
    if state.state is None:
        state = end_in(output_of_run(batch, attempt, claim)) or state
    stopped = attempt.stopped().get("end")
    if state.state is not None:
        finish(attempt, claim, state.state, state.reason, f"{state.message} ({job})", held)
    elif stopped:
        finish(attempt, claim, stopped["state"], stopped["reason"], stopped["message"], held)
    else:
        message = f"Slurm says only that it has ended ({job}), and its supervisor left no record"
        end = unrecorded_end(attempt, message)
        finish(attempt, claim, end["state"], end["reason"], end["message"], held)


def output_of_run(batch: Batch, attempt: Attempt, claim: Claim) -> str:
    """Return the last output of the script that ran an attempt, in which Slurm says why it ends it."""
    try:
        with os.fdopen(regular_files.open_to_read(batch.output_of(attempt)), "rb") as file:
            file.seek(max(claim.get("output_start", 0), os.fstat(file.fileno()).st_size - log_ends.TAIL_BYTES))
            return file.read(log_ends.TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def end_in(output: str) -> words.State | None:
    """Return how a run ended by its script's output; None if that does not say it."""
    signs = [meant for sign, meant in words.OUTPUT_SIGNS if sign in output]
    return signs[0] if signs else None


def finish(attempt: Attempt, claim: Claim, state: str, reason: str | None, message: str, held: Held = UNKNOWN) -> None:
    """
    Record an end, with the facts that the supervisor noted when it was told to stop.

    :param held: from when to when it had its nodes.
    """
    facts: EndFacts = run_facts(claim)
    facts.update(attempt.stopped().get("facts") or {})
    if held.since is not None and held.until is not None:
        facts["leased_at"], facts["released_at"] = records.time_of(held.since), records.time_of(held.until)
        facts.pop("gpu_seconds", None)
    if reason == protocol.NODE_FAILURE and "[" in (claim.get("nodes") or ""):
        facts["failed_nodes"] = _failed_of(str(claim["nodes"]))
    attempt.finish(state, reason, message, **facts)


def _failed_of(nodes: str) -> str:
    """Return those of several nodes that Slurm does not use now; an empty text when it does not say it."""
    with contextlib.suppress(Refused):
        shown = run(commands.node_states(names=nodes), timeout_s=_ASK_S).output
        return ",".join(commands.named_nodes(shown, are_failed=True))
    return ""
