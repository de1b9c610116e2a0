"""``sbatch --test-only``: whether Slurm would take a job, and when it would start it. Nothing here runs anything."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from . import commands, words
from .runner import Answer

# If something in the place of sbatch knows no such option, and takes the job.
SCRIPT = "#!/bin/sh\nexit 0\n"
_START = re.compile(r"\bto start at (\S+)")
_IN_FRONT = re.compile(r"(^|; )allocation failure: ")

# What Slurm has said.
TAKEN = "taken"
SILENT = "silent"
LIMIT = "limit"  # it takes no more jobs of this user at present
NO_NODES = "no nodes"  # that could ever be used, or that take jobs now: it has the same words for both
LATER = "later"  # it would take the job, and keep it waiting
NOT_NOW = "not now"  # it takes none at present
REFUSED = "refused"


class TrialAnswer(NamedTuple):
    """
    What Slurm has said about a job.

    :param said: one of the words above.
    :param start: when it expects to start the job, in seconds since the epoch; None if it does not say.
    :param message: in its own words.
    """

    said: str
    start: float | None = None
    message: str = ""


def trial(sbatch: Sequence[str]) -> list[str]:
    """Return the command that tries what another would submit."""
    return [sbatch[0], "--test-only", *sbatch[1:]]


def meaning_of(answer: Answer) -> TrialAnswer:
    """Return what an answer means."""
    # A site's own script in the place of sbatch may print what it wants, and where.
    message = _IN_FRONT.sub(r"\1", commands.said(answer.errors) or commands.said(answer.output))
    message = message or f"sbatch ended with exit code {answer.code} and no message"
    if answer.code is None or commands.is_unreachable(answer.errors):
        return TrialAnswer(SILENT, message=message)
    if answer.code == 0:
        found = _START.search(answer.errors) or _START.search(answer.output)
        return TrialAnswer(TAKEN, None if found is None else commands.seconds(found.group(1)), message)
    if commands.is_submit_limit(answer.errors) or any(sign in answer.errors for sign in words.SUBMIT_LIMITS):
        return TrialAnswer(LIMIT, message=message)
    for said, signs in (
        (LATER, words.NODES_NOT_NOW),
        (NOT_NOW, words.PARTITION_NOT_NOW),
        (NO_NODES, words.NO_SUCH_NODES[:1]),
    ):
        if any(sign in answer.errors for sign in signs):
            return TrialAnswer(said, message=message)
    if "test-only" in answer.errors + answer.output:
        # A site's own script in the place of sbatch does not let anybody try.
        return TrialAnswer(SILENT, message=message)
    return TrialAnswer(REFUSED, message=message)
