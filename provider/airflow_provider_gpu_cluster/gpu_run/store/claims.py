"""What a claim says: who runs an attempt, or keeps anybody from running it."""

from __future__ import annotations

from typing import Any

from ..linux import processes
from . import records


def new_claim(by: str, **more: Any) -> dict[str, Any]:
    """
    Return a claim of this process, for :meth:`.store.directories.Attempt.claim`.

    :param by: what this process does, such as ``supervisor`` or ``cancel``.
    :param more: what the claim says besides.
    """
    return dict(processes.identity(), by=by, at=records.now(), **more)


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
