"""A job that has a GPU for as long as the tests last."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def holds() -> None:
    """A job that runs until its cluster ends."""
    SubmitGpuJobOperator(task_id="gpu", command="exec sleep 3600", gpus=1, wait_for_completion=True, deferrable=True)


holds()
