"""A job's cluster, as the API server may reach it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook


@contextlib.contextmanager
def cluster_of(conn_id: str) -> Iterator[Cluster]:
    """
    Give the cluster of a job, by the connection that XCom says.

    :raises GpuClusterSetupError: it does not lead to a cluster.
    """
    with GpuClusterHook(conn_id) as hook:
        conn_type = hook.get_connection(hook.gpu_cluster_conn_id).conn_type
        if conn_type != hook.conn_type:
            # What is in XCom must not lead the API server to a database's host with its password.
            raise GpuClusterSetupError(
                f"connection {hook.gpu_cluster_conn_id} is of type {conn_type}; "
                f"the API server only talks to connections of type {hook.conn_type}"
            )
        yield hook.cluster
