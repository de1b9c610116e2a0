"""Chooses the cluster of a pool to which the inputs of a job are copied, before the job is launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.pools.appraised_job import job_to_appraise
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.choice import choose
from airflow_provider_gpu_cluster.pools.table import table_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.spec import JobSpec
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.sources import Source

log = structlog.get_logger(__name__)

_HAS_IT = (protocol.QUEUED, protocol.RUNNING, protocol.SUCCEEDED)


def cluster_for_inputs(
    pool: Pool,
    members: Members[Cluster],
    *,
    identity: JobIdentity,
    sources: Sequence[Source],
    spec: JobSpec,
) -> str:
    """
    Return the connection of the cluster where a job's inputs are to be.

    That is where an attempt of it waits or runs or has succeeded, if there is one, else what the policy chooses.

    :param spec: what the job will need.
    :raises NoClusterFitsError: no cluster can ever run it.
    :raises GpuClusterConnectionError: none can be asked.
    """
    job = job_to_appraise(identity.job_id, spec=spec.to_json(), sources=sources, record=identity.record)
    (offers,) = offers_of(pool, [job], open_member=members)
    for offer in offers:
        if _has_it(offer):
            log.info("GPU job is on this cluster already; its inputs are staged there", cluster=offer.conn_id)
            return offer.conn_id
    choice = choose(offers, pool.policy)
    log.info(f"GPU job's inputs go to {choice.offer.conn_id}\n{table_of(choice)}")
    return choice.offer.conn_id


def _has_it(offer: Offer) -> bool:
    status = (offer.placed or {}).get("status")
    return status is not None and status["state"] in _HAS_IT and not status.get("placement")
