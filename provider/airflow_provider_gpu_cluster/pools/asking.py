"""Asks all clusters of a pool what they offer for jobs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.retry import is_about_address, is_worth_another_try
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, GpuClusterProtocolError
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.offer import Member, Offer, gpus_of, offer_of, offer_without_answer
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.side_by_side import side_by_side

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import Appraisal, AppraiseReply, JobToAppraise

# How long a cluster that is silent keeps the others waiting, in seconds.
WAIT_S = 4.0


@dataclass(frozen=True)
class Appraised:
    """
    What a cluster has answered about jobs.

    :param appraisals: of each job.
    :param clock_ahead_s: see :class:`.Offer`.
    """

    appraisals: tuple[Appraisal, ...]
    clock_ahead_s: float


def offers_of(
    pool: Pool,
    jobs: Sequence[JobToAppraise],
    *,
    open_member: Members[Cluster],
    wait_s: float = WAIT_S,
) -> list[list[Offer]]:
    """
    Return what each cluster of a pool offers for each of some jobs.

    All are asked at the same time, and the connections stay open in ``open_member``. One that cannot be asked has a row
    that says why. As long as none has answered that one of the jobs fits, the silent ones get more time.

    :param open_member: the clusters.
    :param wait_s: how long a silent cluster keeps the others waiting, in seconds.
    :return: for each job, the offers in the order of the pool.
    """

    def ask(cluster: Cluster) -> Appraised:
        return _appraised(cluster, jobs, wait_s)

    answers = side_by_side(pool.conn_ids, ask, members=open_member, wait_s=wait_s, is_enough=_is_enough)
    return [
        [_offer(member, index, job, answers[member.conn_id]) for member in pool.members]
        for index, job in enumerate(jobs)
    ]


def _is_enough(answers: Mapping[str, Appraised | GpuClusterError]) -> bool:
    return any(
        isinstance(answer, Appraised) and all(appraisal["fits"] for appraisal in answer.appraisals)
        for answer in answers.values()
    )


def _appraised(cluster: Cluster, jobs: Sequence[JobToAppraise], wait_s: float) -> Appraised:
    try:
        reply = cluster.retrying_for(0).appraise(jobs)
    except GpuClusterConnectionError as error:
        # A server may turn some away when many come at once. Where nobody listens, nobody will soon.
        if is_about_address(error) or not is_worth_another_try(error) or cluster.is_interrupted:
            raise
        reply = cluster.retrying_for(wait_s / 2).appraise(jobs)
    return appraised(reply, came_at=time.time(), count=len(jobs), where=cluster.settings.where)


def appraised(reply: AppraiseReply, *, came_at: float, count: int, where: str) -> Appraised:
    """
    Return what a reply says.

    :param came_at: when it came, in seconds since the epoch.
    :param count: how many jobs were asked about.
    :param where: the cluster, for messages.
    :raises GpuClusterProtocolError: it is not about so many.
    """
    if len(reply["jobs"]) != count:
        raise GpuClusterProtocolError(f"{where}: it was asked about {count} jobs, and told of {len(reply['jobs'])}")
    return Appraised(tuple(reply["jobs"]), reply["now"] - came_at)


def _offer(member: Member, index: int, job: JobToAppraise, answer: Appraised | GpuClusterError) -> Offer:
    if isinstance(answer, GpuClusterError):
        return offer_without_answer(member, answer, needs_gpus=gpus_of(job))
    return offer_of(member, answer.appraisals[index], needs_gpus=gpus_of(job), clock_ahead_s=answer.clock_ahead_s)
