"""What a claim says: who runs an attempt, or keeps anybody from running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..linux import processes
from . import records

if TYPE_CHECKING:
    from ..protocol.records import Claim, EndFacts


def claim_by(name: str) -> Claim:
    """
    Return a claim of this process, made now, for :meth:`.store.directories.Attempt.claim`.

    :param name: what it is to the attempt: its ``supervisor``, a ``cancel``, or whatever else claims one.
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
    Return what the claim of a supervisor tells of the run: a part of its status, and of an exit record that somebody
    else makes.
    """
    return {
        "started_at": claim["at"],
        "gpus": [gpu["index"] for gpu in claim["gpus"]],
        "host": claim.get("nodes") or claim["host"],
        "pid": claim["pid"],
    }
