"""A sweep whose elements are compared in a browser."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def compared() -> None:
    """Twelve elements, of which two fail, and their metrics collected."""
    train = SubmitGpuJobOperator(
        task_id="train",
        code="compared_code",
        entry_script="train.py",
        script_args=["--epochs", "5"],
        array=[["--rate", rate, "--depth", depth] for rate in (0.003, 0.01, 0.03, 0.1) for depth in (1, 2, 3)],
        gpus=1,
        wait_for_completion=True,
        deferrable=True,
    )
    collect = CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination="/tmp/gpu-cluster-compared/{{ run_id }}",
        include=["metrics.json"],
        trigger_rule="all_done",
    )
    train >> collect


compared()
