"""A pool of clusters, as a DAG or a connection names it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from airflow_provider_gpu_cluster.pools.offer import Member, Offer

SOONEST, CHEAPEST, IN_ORDER = "soonest", "cheapest", "in_order"
POLICIES = (SOONEST, CHEAPEST, IN_ORDER)

# One of the words above, or a function that gets the offers that fit and returns one of them, or the id of its
# connection.
Policy: TypeAlias = str | Callable[[Sequence[Offer]], Offer | str]


@dataclass(frozen=True)
class Pool:
    """
    Clusters of which one is chosen for each job.

    :param members: at least one, no two alike, in the order in which they are preferred.
    :param policy: how one is chosen.
    :param conn_id: the connection that names them; None if a DAG does.
    """

    members: tuple[Member, ...]
    policy: Policy = SOONEST
    conn_id: str | None = None

    @property
    def conn_ids(self) -> list[str]:
        """Return the connections of the members, in their order."""
        return [member.conn_id for member in self.members]
