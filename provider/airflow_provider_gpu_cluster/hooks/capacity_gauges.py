"""The capacity of a cluster in Airflow's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.observability.stats import Stats

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity


def send_gauges(capacity: Capacity, conn_id: str) -> None:
    """Send what is known of a cluster's GPUs to Airflow's metrics, tagged with the connection."""
    values = {
        "gpus": len(capacity["gpus"]),
        "free_gpus": capacity["free_gpus"],
        "broken_gpus": len(capacity.get("broken_gpus", [])),
        "waiting_jobs": capacity["waiting_jobs"],
    }
    for name, value in values.items():
        # A site's own launcher alone knows its GPUs.
        if value is not None and "launcher" not in capacity:
            Stats.gauge(f"gpu_cluster.{name}", value, tags={"conn_id": conn_id})
