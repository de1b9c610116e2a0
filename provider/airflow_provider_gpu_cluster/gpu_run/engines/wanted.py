"""Jobs that may be launched on a cluster, and what is said of those that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .. import protocol

if TYPE_CHECKING:
    from ..errors import Refused
    from ..protocol.appraisal import Prospect
    from ..protocol.spec import Spec
    from ..protocol.status import Status

_PASSING = (protocol.GPUS_UNAVAILABLE, protocol.NO_SPACE, protocol.ROOT_NOT_WRITABLE, protocol.PASSING_FAULT)


class Wanted(NamedTuple):
    """
    A job that may be launched here.

    :param status: of its attempt that waits here; None if none does.
    """

    spec: Spec
    job_id: str = ""
    status: Status | None = None


def unfit(refusal: Refused) -> Prospect:
    """Return the prospect of a job that would be refused if it was launched now."""
    prospect: Prospect = {"fits": False, "why_not": refusal.message}
    if refusal.code in _PASSING:
        prospect["is_passing"] = True
    return prospect
