"""The move of a job that waits from one cluster to another, as it was decided. No IO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.pools.offer import Offer


@dataclass(frozen=True)
class Move:
    """
    A move.

    :param origin: the cluster where the job waits, by its connection.
    :param better: finds, among what all clusters offer at the last moment, the one to go to; None if it is to stay.
    """

    origin: str
    better: Callable[[Sequence[Offer]], Offer | None]

    def chosen(self, holder: Offer, offers: Sequence[Offer]) -> Offer | None:
        """
        Return where the job is to go; None if it is to stay where it is.

        :param holder: the cluster that has it.
        """
        status = holder.placed.get("status") if holder.placed is not None else None
        if holder.conn_id != self.origin or status is None or status["state"] != protocol.QUEUED:
            return None
        return self.better(offers)
