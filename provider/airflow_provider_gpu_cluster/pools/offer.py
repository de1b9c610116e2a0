"""A cluster of a pool, and what it offers for one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placed


@dataclass(frozen=True)
class Member:
    """
    One cluster of a pool.

    :param conn_id: its connection.
    :param weight: how much it is preferred: an expected wait counts divided by it.
    :param price_per_gpu_hour: of the connection, in the currency that all members share; None if it gives none.
    """

    conn_id: str
    weight: float = 1.0
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True)
class Offer:
    """
    One row of the choice. What is not known is None.

    :param member: the cluster.
    :param fits: whether the job can ever run there.
    :param why_not: a sentence, if it cannot, or if the cluster has not answered.
    :param answered: whether the cluster has answered.
    :param free_gpus: GPUs there that suit the job, are free, and are not promised to another.
    :param gpus: GPUs there that suit the job.
    :param starts_in_s: when the job is expected to start if it is launched now, in seconds from now.
    :param start_known_by: how that is known.
    :param missing_bytes: how much of the inputs is to be sent.
    :param send_s: how long that will take, in seconds.
    :param is_environment_built: whether the Python environment of the job is built there; None if it needs none.
    :param price_per_gpu_hour: of the connection, in the currency that all members share.
    :param placed: what the cluster knows of the job itself.
    :param clock_ahead_s: by how much the clock of the cluster is ahead of this process's, at least; add it to a moment
        of this process to get a moment of the cluster that is not later.
    """

    member: Member
    fits: bool
    why_not: str = ""
    answered: bool = True
    free_gpus: int | None = None
    gpus: int | None = None
    starts_in_s: float | None = None
    start_known_by: str | None = None
    missing_bytes: int | None = None
    send_s: float | None = None
    is_environment_built: bool | None = None
    price_per_gpu_hour: float | None = None
    placed: Placed | None = None
    clock_ahead_s: float = 0.0

    @property
    def conn_id(self) -> str:
        """Return the connection of the cluster."""
        return self.member.conn_id
