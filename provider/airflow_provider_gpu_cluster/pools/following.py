"""Follows a job of a pool from the cluster that a handle names to the one where it is now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import MOST_HOPS

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.status import JobStatus


class HasSettings(Protocol):
    """A cluster, or its hook."""

    @property
    def settings(self) -> ClusterSettings:
        """Settings of the cluster."""
        ...


class TellsStatus(HasSettings, Protocol):
    """The hook of a cluster."""

    def status(self, job: JobHandle, /) -> JobStatus:
        """Return the status of a job."""
        ...


def next_handle(handle: JobHandle, status: JobStatus, place_of: Callable[[str], HasSettings]) -> JobHandle | None:
    """
    Return the handle of a job on the cluster to which it went from the one that has told its status.

    :param place_of: returns the cluster of a connection, or its hook.
    :return: None if it went nowhere, as far as that cluster knows.
    """
    conn_id = status.moved_to
    if conn_id is None or conn_id == handle.gpu_cluster_conn_id:
        return None
    settings = place_of(conn_id).settings
    return handle.elsewhere(conn_id, root_dir=settings.root_dir, engine=settings.engine)


def followed(handle: JobHandle, hook_of: Callable[[str], TellsStatus]) -> tuple[JobHandle, JobStatus]:
    """
    Return the handle of a job on the cluster where it is, and its status: each cluster that had it says where it went.

    :param hook_of: returns the hook of a connection, which the caller closes.
    :raises GpuClusterConnectionError: one of them cannot be reached now.
    :raises GpuClusterError: it is being moved, and no cluster says that it has it.
    """
    asked = []
    while True:
        asked.append(handle.gpu_cluster_conn_id)
        status = hook_of(handle.gpu_cluster_conn_id).status(handle)
        after = next_handle(handle, status, hook_of)
        if after is None:
            return handle, status
        if len(asked) > MOST_HOPS:
            raise GpuClusterError(
                f"job {handle.job_id}: each of its clusters says that it is on another one ({' -> '.join(asked[-4:])})"
            )
        handle = after


def current_handle(handle: JobHandle, open_cluster: Callable[[str], Cluster]) -> JobHandle:
    """
    Return the handle of a job on the cluster where it is, see :func:`followed`. Of an array on several clusters, each
    part is followed.

    :param open_cluster: returns the cluster of a connection, which the caller closes.
    """
    if handle.parts:
        return handle.with_arrays([current_handle(array, open_cluster) for array in handle.arrays])
    return followed(handle, lambda conn_id: _StatusTeller(open_cluster(conn_id)))[0]


class _StatusTeller:
    """Asks a cluster as its hook does."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def settings(self) -> ClusterSettings:
        return self._cluster.settings

    def status(self, job: JobHandle, /) -> JobStatus:
        return self._cluster.statuses([job.job_id])[0]
