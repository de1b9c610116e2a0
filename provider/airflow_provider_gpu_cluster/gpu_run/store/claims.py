"""What a claim says: which process runs an attempt, or keeps others from running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..linux import processes
from . import records

if TYPE_CHECKING:
    from ..protocol.records import Claim, EndFacts


def claim_by(name: str) -> Claim:
    """
    Return a claim of this process, made now, for :meth:`.store.directories.Attempt.claim`.

    :param name: the role of the claimant: ``supervisor``, ``cancel``, or another.
    """
    who = processes.identity()
    return {
        "pid": who["pid"],
        "start": who["start"],
        "boot": who["boot"],
        "host": who["host"],
        "by": name,
        "at": records.now(),
    }


def run_facts(claim: Claim) -> EndFacts:
    """
    Return what a supervisor's claim says about the run. It is part of the status, and of an exit record that another
    process makes.
    """
    facts: EndFacts = {
        "started_at": claim["at"],
        "gpus": [gpu["index"] for gpu in claim["gpus"]],
        "gpu_keys": [gpu["key"] for gpu in claim["gpus"]],
        "host": claim.get("nodes") or claim["host"],
        "pid": claim["pid"],
    }
    if "leased_at" in claim:
        facts["leased_at"] = claim["leased_at"]
    return facts
