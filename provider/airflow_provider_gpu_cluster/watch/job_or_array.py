"""What watches a job, or an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.logs.job_log import Log
from airflow_provider_gpu_cluster.watch.job_watch import JobWatch

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster


def watch_of(
    cluster: Cluster, handle: JobHandle, *, log: Log, reader: str | None, memory: dict[str, Any] | None = None
) -> JobWatch:
    """Return what follows a job, or an array; see :class:`JobWatch` for the parameters."""
    if handle.array_size is None:
        return JobWatch(cluster, handle, log=log, reader=reader, memory=memory)
    from airflow_provider_gpu_cluster.watch.array_watch import ArrayWatch

    return ArrayWatch(cluster, handle, log=log, reader=reader, memory=memory)
