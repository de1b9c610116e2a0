"""Chooses the watch of a job or an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.logs.job_log import Log
from airflow_provider_gpu_cluster.watch.array_watch import ArrayWatch
from airflow_provider_gpu_cluster.watch.job_watch import JobWatch
from airflow_provider_gpu_cluster.watch.watch import Watch

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.pools.parts import OpenCluster
    from airflow_provider_gpu_cluster.watch.notices import Notices


def watch_of(
    cluster: Cluster,
    handle: JobHandle,
    *,
    log: Log,
    reader: str | None,
    memory: dict[str, Any] | None = None,
    notices: Notices | None = None,
    open_cluster: OpenCluster | None = None,
) -> Watch:
    """
    Return the watch of a job or an array; see :class:`.JobWatch` for the parameters.

    :param open_cluster: returns the cluster of a connection, for an array on several clusters.
    """
    if handle.array_size is None:
        return JobWatch(cluster, handle, log=log, reader=reader, memory=memory, notices=notices)
    return ArrayWatch(
        cluster, handle, log=log, reader=reader, memory=memory, notices=notices, open_cluster=open_cluster
    )
