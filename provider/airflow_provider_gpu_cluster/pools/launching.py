"""Launches the job of a request in a pool of clusters, with the files of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.placing import JobToPlace, Placing

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.sources import Source


def placing_of(
    pool: Pool,
    members: Members[Cluster],
    *,
    job_id: str,
    sources: Sequence[Source],
    arguments: LaunchArguments,
    store: PlacementStore,
    log: Log,
    failover_after_s: float | None = None,
    check: Callable[[], None] = lambda: None,
    by: str = "",
) -> Placing[Cluster]:
    """
    Return what places a job in a pool, for one try of a task; needs nothing of Airflow's.

    :param members: the open clusters.
    :param sources: the job's inputs.
    :param arguments: what else :func:`.submit_request` takes.
    :param store: what the task remembers.
    :param failover_after_s: see :class:`.JobToPlace`.
    :param check: raises an error when the task is to stop.
    :param by: who asks, in words.
    """
    spec = arguments["spec"].to_json()
    appraised: JobToAppraise = {
        "job_id": job_id,
        "spec": spec,
        "inputs": [source.to_json() for source in sources],
    }

    def offers(everybody: Pool) -> list[Offer]:
        return offers_of(everybody, [appraised], open_member=members)[0]

    def launch(cluster: Cluster, placement: Placement | None) -> Submission:
        placed: Any = {} if placement is None else {"placement": placement}
        return cluster.submit(job_id, sources=sources, **{**arguments, **placed})

    job = JobToPlace(job_id, arguments["request_key"], spec, failover_after_s, by)
    return Placing(pool, job, store=store, members=members, offers=offers, launch=launch, log=log, check=check)
