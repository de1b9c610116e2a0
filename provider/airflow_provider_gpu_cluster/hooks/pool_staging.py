"""Copies the inputs of a job to a cluster of a pool, before the job is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.pools.appraised_job import job_to_appraise
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.choice import choose
from airflow_provider_gpu_cluster.pools.refusals import is_of_the_job, refusal_of, with_refusal
from airflow_provider_gpu_cluster.pools.table import table_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.spec import JobSpec
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.sources import Source

log = structlog.get_logger(__name__)

_HAS_IT = (protocol.QUEUED, protocol.RUNNING, protocol.SUCCEEDED)


def stage_in_pool(
    pool: Pool,
    members: Members[Cluster],
    *,
    identity: JobIdentity,
    sources: Sequence[Source],
    spec: JobSpec,
) -> JobHandle:
    """
    Copy a job's inputs to the cluster where they are to be, and return its handle there.

    That is where an attempt of it waits or runs or has succeeded, if there is one, else what the policy chooses. If
    that one is lost meanwhile, or has no room for them, it is the next best.

    :param spec: what the job will need.
    :raises NoClusterFitsError: no cluster can ever run it.
    :raises GpuClusterConnectionError: none can be asked.
    """
    job = job_to_appraise(identity.job_id, spec=spec.to_json(), sources=sources, record=identity.record)
    refused: dict[str, GpuClusterError] = {}
    while True:
        (offers,) = offers_of(pool, [job], open_member=members)
        conn_id = next((offer.conn_id for offer in offers if _has_it(offer)), None)
        is_there = conn_id is not None
        if conn_id is None:
            conn_id = _chosen(offers, pool, refused)
        else:
            log.info("GPU job is on this cluster already; its inputs are staged there", cluster=conn_id)
        try:
            return members(conn_id).stage(identity.job_id, sources, record=identity.record)
        except GpuClusterError as error:
            if is_there or is_of_the_job(error):
                raise
            refused[conn_id] = error
            event = f"GPU job's inputs do not go to {conn_id} after all; the next best is tried"
            log.warning(event, error=str(error))


def _chosen(offers: Sequence[Offer], pool: Pool, refused: Mapping[str, GpuClusterError]) -> str:
    left = [with_refusal(offer, refused.get(offer.conn_id)) for offer in offers]
    try:
        choice = choose(left, pool.policy)
    except GpuClusterError as error:
        if not refused:
            raise
        raise refusal_of(refused.values(), left) from error
    log.info(f"GPU job's inputs go to {choice.offer.conn_id}\n{table_of(choice)}")
    return choice.offer.conn_id


def _has_it(offer: Offer) -> bool:
    status = (offer.placed or {}).get("status")
    return status is not None and status["state"] in _HAS_IT and not status.get("placement")
