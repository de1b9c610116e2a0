"""
What follows the end of an attempt, done on its compute node at once, if Slurm can be asked from there.

Where it cannot, or where nobody there knows yet why the attempt has ended, a process on a login node does the same as
soon as somebody asks about the job.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ...errors import Refused
from ...store.directories import Attempt, Root
from ...store.next_attempt import follow
from . import commands, words
from .batch import Batch
from .ends import end_in, output_of_run, settle_ended
from .requeued import settle_requeued
from .runner import Answer, run
from .submitter import Submitter

if TYPE_CHECKING:
    from ...protocol.records import Claim

# GPUs stand idle meanwhile.
_ASK_S = 5.0
# A compute node keeps nobody from submitting.
_NO_PAUSE_S = 0.0


def go_on(attempt: Attempt, job: str) -> None:
    """
    Hand the next attempt to Slurm, if one follows by itself.

    :param attempt: that has run here and is over.
    :param job: what Slurm calls it.
    """
    # The job may have spoilt its records.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, Refused):
        claim = attempt.claimed()
        if claim is None or claim["by"] != "supervisor" or claim.get("slurm_job") != job:
            return
        if attempt.ended() is None:
            _settle(attempt, claim, job)
        following = follow(attempt.job)
        if following is None:
            return
        request = following.request()
        root = Root(os.path.dirname(attempt.job.path))
        submitter = Submitter(root, request["settings"], request["program"], _NO_PAUSE_S, only_tries=True)
        submitter.submit(Batch.of(following))


def is_taken_back(job: str, nodes: int, was_term: bool, output: bytes) -> bool:
    """
    Return whether Slurm has made a job end that has ended now, and has not told its supervisor yet.

    It tells first what ``srun`` has started: when a node fails, and at the begin of a preemption that has a grace time.
    What is told so may well end with exit code 0.

    :param job: what Slurm calls it.
    :param was_term: whether a TERM has ended it.
    :param output: its last errors.
    """
    is_said = any(sign.encode() in output for sign in words.STEP_SIGNS)
    if nodes == 1 and not was_term and not is_said:
        return False
    answer = _details(job)
    if answer.code != 0:
        return is_said
    state = words.STATES.get(commands.detail(answer.output, "JobState") or "")
    is_ending = state is not None and state.phase == words.ENDED
    return is_ending or _is_preempted(answer) or words.NODE_FAILED.encode() in output


def _settle(attempt: Attempt, claim: Claim, job: str) -> None:
    """Record the end of a run that Slurm has ended, if Slurm says by now why."""
    answer = _details(job)
    batch = Batch.of(attempt)
    output = output_of_run(batch, attempt, claim)
    why = end_in(output)
    restarts = commands.detail(answer.output, "Restarts") or "0"
    if (restarts.isdigit() and int(restarts) > claim["restarts"]) or (why and why.message == words.REQUEUED):
        settle_requeued(attempt, claim, job)
        return
    state = words.STATES.get(commands.detail(answer.output, "JobState") or "")
    if state is None or state.state is None:
        # Somebody may also have cancelled it in the time that a preemption grants it.
        is_preempted = _is_preempted(answer) and words.CANCELLED not in output
        state = words.STATES["PREEMPTED"] if is_preempted else why
    is_known = answer.code == 0 or not _may_be_requeued(attempt)
    if state is not None and is_known:
        settle_ended(attempt, batch, claim, f"job {job}", state)


def _is_preempted(answer: Answer) -> bool:
    return commands.detail(answer.output, "PreemptTime") not in (None, "None", "Unknown", "N/A")


def _may_be_requeued(attempt: Attempt) -> bool:
    request = attempt.request()
    options = [*(request["settings"].get("sbatch_options") or ()), *(request["spec"].get("sbatch_options") or ())]
    return "--requeue" in options


def _details(job: str) -> Answer:
    try:
        return run(commands.details(job), timeout_s=_ASK_S)
    except Refused as refusal:
        return Answer(None, "", refusal.message)
