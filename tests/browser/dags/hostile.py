"""A job that attacks whoever looks at it."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator


@dag(schedule=None, default_args={"owner": "mallory", "retries": 0})
def hostile() -> None:
    """What it prints, reports and writes is markup, escape sequences, nonsense, and far too much of it."""
    SubmitGpuJobOperator(
        task_id="attack",
        code="hostile_job",
        entry_script="attack.py",
        pass_output_dirs=False,
        gpus=1,
        wait_for_completion=True,
        deferrable=True,
        get_logs=False,
    )


hostile()
