"""The watchers of this process: one for each connection, shared by all of its triggers."""

from __future__ import annotations

import socket
import threading

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.watch.watcher import Watcher

watchers_by_connection: dict[str, Watcher] = {}
_lock = threading.Lock()


def watcher_of(conn_id: str) -> Watcher:
    """Return the watcher of a connection; the process has only one for each."""
    with _lock:
        if conn_id not in watchers_by_connection:
            watchers_by_connection[conn_id] = Watcher(conn_id, lambda: _cluster_of(conn_id))
        return watchers_by_connection[conn_id]


def _cluster_of(conn_id: str) -> Cluster:
    hook = GpuClusterHook(conn_id)
    # It is asked for all tasks together.
    hook.caller = {"airflow_host": socket.gethostname()}
    return hook.cluster
