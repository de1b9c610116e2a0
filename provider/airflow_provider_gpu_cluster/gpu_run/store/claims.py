"""What a claim says: who runs an attempt, or keeps anybody from running it."""

from __future__ import annotations

from typing import Any

from ..linux import processes
from . import records


def claim_by(name: str, **more: Any) -> dict[str, Any]:
    """
    Return a claim of this process, made now, for :meth:`.store.directories.Attempt.claim`.

    :param name: what it is to the attempt: its ``supervisor``, a ``cancel``, or whatever else claims one.
    :param more: what the claim says besides.
    """
    return dict(processes.identity(), by=name, at=records.now(), **more)


def run_facts(claim: dict[str, Any]) -> dict[str, Any]:
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
