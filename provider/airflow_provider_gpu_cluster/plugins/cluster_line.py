"""The line to a cluster that is looked at again and again: its SSH connection stays open between the looks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.plugins.cluster_access import hook_of

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_gpu_cluster.gpu_run.protocol.totals import TotalsReply
    from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

CALL_LIMIT_S = 20.0
_SOON_S = 5.0


class ClusterLine:
    """
    The line to a cluster.

    :param conn_id: connection of the cluster.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._lock = threading.Lock()
        self._hook: GpuClusterHook | None = None
        self._connection: Connection | None = None
        self._has_answered = False

    def totals(self) -> TotalsReply:
        """
        Ask the cluster what it adds up to.

        :raises GpuClusterError: the cluster could not be asked.
        """
        with self._lock:
            hook = self._current_hook()
            began = time.monotonic()
            try:
                totals = _totals(hook)
            except GpuClusterConnectionError:
                is_sure = not self._has_answered or time.monotonic() - began > _SOON_S
                self._has_answered = False
                if is_sure:
                    raise
                # It broke since the last look, which does not say that the cluster is out of reach.
                hook.close()
                totals = _totals(hook)
            self._has_answered = True
            return totals

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._has_answered = False
        if self._hook is not None:
            self._hook.close()

    def _current_hook(self) -> GpuClusterHook:
        """Return a hook with the connection as it is now, which somebody may have changed."""
        hook, connection = hook_of(self._conn_id)
        if self._hook is None or connection != self._connection:
            self._close()
            self._hook, self._connection = hook, connection
        return self._hook


def _totals(hook: GpuClusterHook) -> TotalsReply:
    # A cluster that accepts the call and then stays silent must not block a thread for longer than this.
    limit = threading.Timer(CALL_LIMIT_S, hook.cluster.interrupt)
    limit.daemon = True
    limit.start()
    try:
        # No retries: the next scrape looks again.
        return hook.cluster.retrying_for(0).totals()
    finally:
        limit.cancel()
