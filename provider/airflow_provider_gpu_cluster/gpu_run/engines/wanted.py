"""Jobs that may be launched on a cluster, and what is said of those that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .. import protocol
from ..errors import Refused

if TYPE_CHECKING:
    from ..protocol.appraisal import Prospect
    from ..protocol.spec import Spec
    from ..protocol.status import Status

_PASSING = (protocol.GPUS_UNAVAILABLE, protocol.NO_SPACE, protocol.ROOT_NOT_WRITABLE, protocol.PASSING_FAULT)


# What of a spec says where on a Slurm it runs, and how. For whom (account, qos) is of no matter elsewhere.
_ONLY_SLURM = ("partition", "constraint", "sbatch_options")


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


def refuse_what_only_slurm_has(spec: Spec) -> None:
    """
    Refuse a job for which a Slurm is to be chosen, and not this cluster, which would ignore what it asks for.

    :raises Refused: it says for what.
    """
    asked = [name for name in _ONLY_SLURM if spec.get(name)]
    if asked:
        raise Refused(
            protocol.NOT_ENOUGH_GPUS,
            "the job gives {}, which only Slurm has; to let it run elsewhere too, give {} in the connection of the "
            "Slurm".format(" and ".join(asked), "it" if len(asked) == 1 else "them"),
        )
