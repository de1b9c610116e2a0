"""Access of Airflow's own processes, such as the API server, to a job's cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook


@contextlib.contextmanager
def cluster_of(conn_id: str) -> Iterator[Cluster]:
    """
    Yield the cluster of the connection that a job's XCom names.

    :raises GpuClusterSetupError: the connection is not one to a cluster.
    """
    with hook_of(conn_id) as hook:
        yield hook.cluster


@contextlib.contextmanager
def hook_of(conn_id: str) -> Iterator[GpuClusterHook]:
    """
    Yield the hook of such a cluster.

    :raises GpuClusterSetupError: the connection is not one to a cluster.
    """
    with GpuClusterHook(conn_id) as hook:
        conn_type = hook.get_connection(hook.gpu_cluster_conn_id).conn_type
        if conn_type != hook.conn_type:
            # An XCom must not make the API server send the password of a database to the database's host.
            raise GpuClusterSetupError(
                f"connection {hook.gpu_cluster_conn_id} is of type {conn_type}; "
                f"jobs are only looked at and ended through connections of type {hook.conn_type}"
            )
        yield hook
