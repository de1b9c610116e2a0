"""The clusters that pages look at: each over one connection of this process, whoever looks and at what."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.plugins.cluster_access import hook_of
from airflow_provider_gpu_cluster.watch.watcher import Watcher

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_gpu_cluster.cluster import Cluster

log = logging.getLogger(__name__)

# How often to see whether somebody has changed the Airflow connection, in seconds.
CHECK_S = 10.0


class LiveCluster:
    """
    A cluster that is looked at.

    :param conn_id: its connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._connection: Connection | None = None
        self._checked_at = 0.0
        self.watcher = Watcher(conn_id, self._cluster)
        """Opens the connection when something is asked, and closes it a while after nobody looks any more."""

    def _cluster(self) -> Cluster:
        hook, self._connection = hook_of(self._conn_id)
        self._checked_at = time.monotonic()
        # It is asked for all who look.
        hook.caller = {"airflow_host": socket.gethostname()}
        return hook.cluster

    @property
    def is_check_due(self) -> bool:
        """Whether the Airflow connection was not looked at for a while."""
        return self._connection is not None and time.monotonic() >= self._checked_at + CHECK_S

    def check(self) -> None:
        """Reconnect if somebody has changed the Airflow connection. Blocks on Airflow's database."""
        self._checked_at = time.monotonic()
        try:
            _, connection = hook_of(self._conn_id)
        except Exception as error:
            # The next try to connect tells it.
            log.info("connection %s cannot be read: %s", self._conn_id, error)
        else:
            if connection == self._connection:
                return
        self.watcher.reconnect()


_clusters: dict[str, LiveCluster] = {}
_lock = threading.Lock()


def live_cluster(conn_id: str) -> LiveCluster:
    """Return the cluster of a connection; the process has only one for each."""
    with _lock:
        if conn_id not in _clusters:
            _clusters[conn_id] = LiveCluster(conn_id)
        return _clusters[conn_id]
