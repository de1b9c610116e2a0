"""
Which one of several clusters has a job: what each of them is told, and what it answers.

Every choice of a cluster for a job is a placement. Placements of one job are ordered by their epoch, and those of one
epoch by their key; a cluster keeps the highest that it was told, and launches nothing for a lower one. So of two that
choose at once, each tells every other cluster of its own placement before it launches, and at most one of them goes on.
"""

from __future__ import annotations

from typing import TypedDict

from .spec import Spec
from .status import Status

# What a cluster is told of a placement.
CLAIM = "claim"  # the job is to be launched here
FENCE = "fence"  # it is to be launched elsewhere: nothing of a lower placement is launched here any more
WITHDRAW = "withdraw"  # the same, and an attempt that still waits is taken back
END = "end"  # the same, and one that runs is ended

# What it answers.
CLAIMED = "claimed"
FENCED = "fenced"  # nothing of the job waits or runs here, and nothing of a lower placement will
OUTRANKED = "outranked"  # it knows a higher placement, and has done nothing
# An attempt waits or runs here. After a claim it belongs to that placement from now on; after an end it is being ended;
# otherwise nothing was done or noted.
LAUNCHED = "launched"
ENDED = "ended"  # the last attempt has ended here, and nothing of a lower placement will run
TAKEN = "taken"  # the GPUs that were free are promised to others; nothing was claimed

# Why an attempt does not run here, in a status and in the record of its end. The end is none of the job.
WITHDRAWN = "withdrawn"  # the job was moved while it waited
FENCED_OFF = "fenced"  # it was placed on another cluster
EXPIRED = "expired"  # nobody renewed it: its last moment to start was over, or it has ended as an orphan
MARKS = (WITHDRAWN, FENCED_OFF, EXPIRED)


class _Placement(TypedDict):
    epoch: int
    key: str


class Placement(_Placement, total=False):
    """
    A choice of a cluster for a job.

    :param epoch: its number; a later choice for the same job has a higher one.
    :param key: who chooses: the try of a task, and which one of those that carry it out.
    :param conn_id: the chosen cluster, by its connection.
    :param members: the connections of all clusters of the pool.
    :param start_by: the last moment at which an attempt of it may start, in seconds since the epoch by the clock of the
        cluster that is told; not given: at any time.
    :param renewed_only: whether its attempts wait and run only for as long as they are renewed: an ``orphan_timeout``
        counts from the last renewal, and other questions about the job do not count.
    """

    conn_id: str
    members: list[str]
    start_by: float
    renewed_only: bool


def order(placement: Placement) -> tuple[int, str]:
    """Return the place of a placement among those of the same job; a higher one outranks it."""
    return placement["epoch"], placement["key"]


class _PlaceRequest(TypedDict):
    job_id: str
    placement: Placement
    kind: str


class PlaceRequest(_PlaceRequest, total=False):
    """
    The verb ``place``.

    :param kind: one of the kinds above.
    :param spec: for a claim, what the job needs; it is promised its GPUs for a short while.
    :param if_free: claim only if it could start now, beside what is promised to others.
    :param by: in words, who asks, for the job's record.
    """

    spec: Spec
    if_free: bool
    by: str


class _PlaceReply(TypedDict):
    outcome: str
    now: float


class PlaceReply(_PlaceReply, total=False):
    """
    :param outcome: one of the answers above.
    :param now: the time of the cluster, in seconds since the epoch.
    :param placement: the highest placement of the job that the cluster knows after this.
    :param chosen: for each cluster that was chosen, as far as this one was told, the highest placement on it.
    :param status: of the job's last attempt, if there is one.
    """

    placement: Placement
    chosen: list[Placement]
    status: Status


class Renewal(TypedDict, total=False):
    """
    One job whose placement goes on.

    :param start_by: see :class:`Placement`; None lets it start at any time.
    """

    job_id: str
    epoch: int
    key: str
    start_by: float | None


class RenewRequest(TypedDict):
    """The verb ``renew``."""

    jobs: list[Renewal]


class RenewReply(TypedDict):
    """
    :param jobs: for each, whether its placement is still the highest here, and is not over: a renewal that comes after
        the last moment at which an attempt could start brings none back that waits.
    :param now: the time of the cluster, in seconds since the epoch.
    """

    jobs: list[bool]
    now: float


class Placed(TypedDict, total=False):
    """
    What a cluster knows of a job, in an appraisal.

    :param placement: the highest placement that it was told.
    :param kind: with which word.
    :param chosen: for each cluster that was chosen, as far as this one was told, the highest placement on it.
    :param launched: the placement under which the last attempt was launched, by its epoch and key.
    :param status: of the last attempt.
    """

    placement: Placement
    kind: str
    chosen: list[Placement]
    launched: Placement
    status: Status
