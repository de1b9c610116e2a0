"""Follows a job of a pool from the cluster that a handle names to the one where it is now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from airflow_provider_gpu_cluster.exceptions import GpuClusterError

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.status import JobStatus

# More often than a job is moved while somebody holds one handle of it.
MOST_HOPS = 20


class ClusterHook(Protocol):
    """What is asked of the hook of one cluster here."""

    @property
    def settings(self) -> ClusterSettings:
        """Its settings."""
        ...

    def status(self, job: JobHandle, /) -> JobStatus:
        """Return what it says of a job."""
        ...


def next_handle(handle: JobHandle, status: JobStatus, hook_of: Callable[[str], ClusterHook]) -> JobHandle | None:
    """
    Return the handle of a job on the cluster to which it went from the one that has told its status.

    :param hook_of: returns the hook of a connection.
    :return: None if it went nowhere, as far as that cluster knows.
    """
    conn_id = status.moved_to
    if conn_id is None or conn_id == handle.gpu_cluster_conn_id:
        return None
    return handle_there(handle, hook_of(conn_id).settings)


def handle_there(handle: JobHandle, settings: ClusterSettings) -> JobHandle:
    """
    Return the handle of a job on another cluster.

    :param settings: of that cluster.
    """
    job_dir = f"{settings.root_dir.rstrip('/')}/{handle.job_id}"
    return replace(handle, gpu_cluster_conn_id=settings.conn_id, engine=settings.engine, job_dir=job_dir)


def followed(handle: JobHandle, hook_of: Callable[[str], ClusterHook]) -> tuple[JobHandle, JobStatus]:
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
