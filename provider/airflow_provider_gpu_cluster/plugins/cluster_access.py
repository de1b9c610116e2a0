"""Access of Airflow's own processes, such as the API server, to a job's cluster."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from airflow.sdk import Connection

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook


@contextlib.contextmanager
def cluster_of(conn_id: str, user: str | None = None, *, limit_s: float | None = None) -> Iterator[Cluster]:
    """
    Yield the cluster of the connection that a job's XCom names.

    :param user: who is logged in and acts, if anybody is.
    :param limit_s: after how many seconds a cluster that stays silent has failed to answer; None waits.
    :raises GpuClusterSetupError: the connection is not one to a cluster.
    """
    with open_hook(conn_id, user) as hook:
        limit = None if limit_s is None else threading.Timer(limit_s, hook.cluster.interrupt)
        try:
            if limit is not None:
                limit.daemon = True
                limit.start()
            yield hook.cluster
        finally:
            if limit is not None:
                limit.cancel()


@contextlib.contextmanager
def open_hook(conn_id: str, user: str | None = None) -> Iterator[GpuClusterHook]:
    """
    Yield the open hook of such a cluster; see :func:`cluster_of`.

    :raises GpuClusterSetupError: the connection is not one to a cluster.
    """
    hook, _ = hook_of(conn_id)
    with hook:
        hook.caller = {"airflow_host": socket.gethostname()}
        if user is not None:
            hook.caller["user"] = user
        yield hook


def hook_of(conn_id: str) -> tuple[GpuClusterHook, Connection]:
    """
    Return a hook for a cluster, and its connection as it is now.

    :raises GpuClusterSetupError: the connection is not one to a cluster.
    """
    hook = GpuClusterHook(conn_id)
    connection = hook.get_connection(conn_id)
    if connection.conn_type != hook.conn_type:
        # An XCom must not make the API server send the password of a database to the database's host.
        raise GpuClusterSetupError(
            f"connection {conn_id} is of type {connection.conn_type}; "
            f"jobs are only looked at and ended through connections of type {hook.conn_type}"
        )
    return hook, connection
