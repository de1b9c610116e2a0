"""Launches a job for the hook of a pool: for a function of a DAG, or for a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import tenacity
from airflow.sdk import get_current_context

from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S, error_of_try
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.hooks.placement_stores import store_of_job
from airflow_provider_gpu_cluster.jobs.identity import identity_of
from airflow_provider_gpu_cluster.pools.launching import placing_of
from airflow_provider_gpu_cluster.pools.stores import NoStore

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.request import JobRequest
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.pools.pool import Pool

log = structlog.get_logger(__name__)

# Between two looks at clusters that may have the job and do not answer.
PAUSE_S = 2.0


def launch_in_pool(
    pool: Pool, members: Members[Cluster], request: JobRequest, identity: JobIdentity, *, base_dir: Path, by: str
) -> Submission:
    """
    Find a job on the cluster of a pool that has it, or choose one and launch it there.

    :param members: the clusters of the pool.
    :param base_dir: folder that relative sources start from.
    :param by: who asks, in words.
    """
    placing = placing_of(
        pool,
        members,
        job_id=identity.job_id,
        sources=request.sources(base_dir=base_dir),
        arguments=request.launch_arguments(identity, base_dir=base_dir, staged=False),
        store=_store_of(identity.job_id),
        log=log,
        by=by,
    )
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(GpuClusterConnectionError),
        wait=tenacity.wait_fixed(PAUSE_S),
        stop=tenacity.stop_after_delay(RETRY_FOR_S),
        before_sleep=_tell,
        reraise=True,
    )
    submission, _ = retrying(placing.begin)
    return submission


def _tell(state: tenacity.RetryCallState) -> None:
    if state.attempt_number == 1:
        log.warning("GPU job is not placed yet, trying again", error=str(error_of_try(state)))


def _store_of(job_id: str) -> PlacementStore:
    try:
        context = get_current_context()
    except RuntimeError:
        return NoStore()
    return store_of_job(context, job_id, is_own=identity_of(context).job_id == job_id)
