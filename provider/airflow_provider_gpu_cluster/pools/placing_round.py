"""Tells several clusters of a placement at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import CLAIM
from airflow_provider_gpu_cluster.pools.members import MemberClient, Members
from airflow_provider_gpu_cluster.pools.side_by_side import Outcomes, side_by_side

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement, PlaceReply
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec

# How long one that is silent holds up a round, in seconds.
WAIT_S = 4.0


class PoolMember(MemberClient, Protocol):
    """What placing a job asks of a cluster; :class:`.Cluster` is one."""

    @property
    def settings(self) -> ClusterSettings:
        """The settings of the cluster."""
        ...

    def retrying_for(self, seconds: float) -> PoolMember:
        """Return the same cluster with another time to keep trying to reach it."""
        ...

    def place(
        self,
        job_id: str,
        placement: Placement,
        kind: str,
        *,
        spec: Spec | None = None,
        if_free: bool = False,
        by: str = "",
    ) -> PlaceReply:
        """Tell it of a placement."""
        ...


_Member = TypeVar("_Member", bound=PoolMember)


def tell(
    told: Mapping[str, tuple[Placement, str]],
    job_id: str,
    members: Members[_Member],
    spec: Spec,
    by: str,
    if_free: bool,
    enough: str | None,
) -> Outcomes[PlaceReply]:
    """
    Tell clusters of a placement, and return the answer of each, or the error in its place.

    :param told: for each cluster, the placement and the word with which it is told.
    :param spec: what the job needs, for a claim.
    :param by: who asks, in words.
    :param if_free: claim only what is free now.
    :param enough: a cluster without whose answer the others are of no use.
    """

    def ask(member: _Member) -> PlaceReply:
        placement, kind = told[member.settings.conn_id]
        once = member.retrying_for(WAIT_S / 2)
        if kind == CLAIM:
            return once.place(job_id, placement, kind, spec=spec, if_free=if_free, by=by)
        return once.place(job_id, placement, kind, by=by)

    return side_by_side(
        list(told),
        ask,
        members=members,
        wait_s=WAIT_S,
        is_enough=lambda outcomes: enough is None or enough in outcomes,
    )
