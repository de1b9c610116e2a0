"""Tasks of which the policy knows which to retry."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.retry_policies.gpu_job import GpuJobRetryPolicy

POLICY = GpuJobRetryPolicy(delay=timedelta(seconds=1))

with DAG("retried_by_policy", schedule=None, default_args={"retries": 3, "retry_policy": POLICY}):
    SubmitGpuJobOperator(task_id="mistake", command="exit 3", wait_for_completion=True)

    @task
    def fault(ti: Any = None) -> None:
        """Fail once, as a launch does while the cluster cannot be reached."""
        if ti.try_number == 1:
            raise GpuClusterConnectionError("no route to host")

    fault()
