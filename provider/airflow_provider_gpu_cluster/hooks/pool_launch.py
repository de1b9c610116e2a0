"""Launches a job in a pool for who has the hook alone, in a task or outside of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from airflow.sdk import get_current_context

from airflow_provider_gpu_cluster.hooks.placement_stores import store_of_job
from airflow_provider_gpu_cluster.jobs.identity import identity_of
from airflow_provider_gpu_cluster.pools.launching import placing_of
from airflow_provider_gpu_cluster.pools.stores import NoStore

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.sources import Source

log = structlog.get_logger(__name__)


def launched_in(
    pool: Pool,
    members: Members[Cluster],
    identity: JobIdentity,
    *,
    sources: Sequence[Source],
    arguments: LaunchArguments,
) -> Submission:
    """
    Launch a job on one cluster of a pool, or find it on the one that has it. Nobody sees to it after that.

    :param sources: its inputs.
    :param arguments: what else :func:`.submit_request` takes.
    """
    placing = placing_of(
        pool,
        members,
        job_id=identity.job_id,
        sources=sources,
        arguments=arguments,
        store=_store(identity.job_id),
        log=log,
    )
    submission, _ = placing.begin()
    return submission


def _store(job_id: str) -> PlacementStore:
    """Return where the running task remembers this job; outside of a task nothing is remembered."""
    try:
        context = get_current_context()
    except RuntimeError:
        return NoStore()
    return store_of_job(context, job_id, is_own=identity_of(context).job_id == job_id)
