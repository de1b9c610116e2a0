"""Four and twenty mapped jobs of twenty seconds. In a file of their own, as each task reads the whole file."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

for dag_id, jobs in {"bench_mapped_four": ["sleep 20"] * 4, "bench_mapped": ["sleep 20"] * 20}.items():
    with DAG(dag_id, schedule=None):
        SubmitGpuJobOperator.partial(task_id="train", wait_for_completion=True, deferrable=True).expand(command=jobs)
