"""The capacity of a cluster in Airflow's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.stats import metrics
from airflow_provider_gpu_cluster.stats.sending import gauge

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity


def send_gauges(capacity: Capacity, conn_id: str) -> None:
    """Send what is known of a cluster's GPUs to Airflow's metrics, tagged with the connection."""
    values = {
        metrics.GPUS: len(capacity["gpus"]),
        metrics.FREE_GPUS: capacity["free_gpus"],
        metrics.BROKEN_GPUS: len(capacity.get("broken_gpus", [])),
        metrics.WAITING_JOBS: capacity["waiting_jobs"],
    }
    for metric, value in values.items():
        # A site's own launcher alone knows its GPUs.
        if value is not None and "launcher" not in capacity:
            gauge(metric, {"conn_id": conn_id}, value)
