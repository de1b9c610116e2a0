"""The hook of a pool's connection: what Airflow's form for it needs."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook

from airflow_provider_gpu_cluster.hooks.pools import POOL_TYPE


class GpuClusterPoolHook(BaseHook):
    """
    A connection that names several clusters, of which one is chosen for each job.

    To run jobs there, give its id to an operator, or to :class:`.GpuClusterHook`.

    :param gpu_cluster_pool_conn_id: connection of type ``gpu_cluster_pool``.
    """

    conn_name_attr = "gpu_cluster_pool_conn_id"
    default_conn_name = "gpu_cluster_pool_default"
    conn_type = POOL_TYPE
    hook_name = "GPU cluster pool"

    def __init__(self, gpu_cluster_pool_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.gpu_cluster_pool_conn_id = gpu_cluster_pool_conn_id

    def get_conn(self) -> Any:
        """Refuse: a pool has no connection of its own."""
        raise NotImplementedError(
            f"connection {self.gpu_cluster_pool_conn_id} is a pool of clusters and opens no connection itself; use "
            "GpuClusterHook(...).member(...)"
        )

    def test_connection(self) -> tuple[bool, str]:
        """Test all members at once, for Airflow's button: return whether all work, and a message about each."""
        from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

        return GpuClusterHook(self.gpu_cluster_pool_conn_id).test_connection()
