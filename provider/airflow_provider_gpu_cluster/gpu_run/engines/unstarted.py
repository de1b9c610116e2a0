"""Attempts that have not begun: end them so that they never run, or prepare them so that they can."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import protocol
from ..environments import python_environment
from ..environments.python_environment import BuildFailed
from ..store import records
from ..store.claims import claim_by
from ..store.directories import Attempt, Root
from ..store.writing import write_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..protocol.records import Claim, End, EndFacts
    from ..supervise.allocation import Allocation


def end_unstarted(
    attempt: Attempt, by: str, state: str, reason: str | None, message: str, **facts: Unpack[EndFacts]
) -> bool:
    """
    End an attempt that nobody has claimed, so that it never runs; return False when it was claimed meanwhile.

    :param by: the claimant that ends it.
    :param facts: what else the record of its end is to say.
    """
    claim = claim_by(by)
    claim["end"] = {"state": state, "reason": reason, "message": message}
    if "placement" in facts:
        claim["end"]["placement"] = facts["placement"]
    if not attempt.claim(claim):
        return False
    facts["submitted_at"] = attempt.request()["requested_at"]
    attempt.finish(state, reason, message, **facts)
    return True


def record_unstarted(attempt: Attempt, claim: Claim) -> None:
    """
    Record the end of an attempt that was claimed to keep it from running, by a process that has died since.

    :param claim: by a cancel, or see :func:`end_unstarted`.
    """
    end: End = claim.get("end") or {
        "state": protocol.CANCELLED,
        "reason": protocol.REASON_CANCELLED,
        "message": "cancelled before it started",
    }
    mark: EndFacts = {"placement": end["placement"]} if "placement" in end else {}
    attempt.finish(end["state"], end["reason"], end["message"], **mark)


def build_environment(attempt: Attempt, by: str, allocation: Allocation) -> bool:
    """
    Build the attempt's Python environment, if it needs one; return False when that failed and so ended the attempt.

    :param by: the claimant that ends it then.
    :param allocation: the GPUs that it has meanwhile.
    """
    wanted = attempt.request()["environment"]
    if not wanted:
        return True
    attempt.event("environment_building")
    try:
        built = python_environment.build(Root(os.path.dirname(attempt.job.path)), wanted, attempt.job.at("code"))
        python_environment.use(built)
    except (BuildFailed, OSError) as error:
        write_text(attempt.job.at("logs", "environment.log"), f"{error}\n")
        message = f"its Python environment could not be built: {error}"
        held: EndFacts = {
            "leased_at": allocation.leased_at,
            "gpus": [gpu["index"] for gpu in allocation.gpus],
            "gpu_keys": [gpu["key"] for gpu in allocation.gpus],
        }
        end_unstarted(attempt, by, protocol.FAILED, protocol.LAUNCH_FAILED, message, **held)
        return False
    records.write_json(attempt.at("environment.json"), built)
    attempt.event("environment_ready", **built)
    return True
