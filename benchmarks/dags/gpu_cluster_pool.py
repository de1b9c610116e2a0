"""A hundred short jobs as mapped tasks that wait in the triggerer: in a pool of three clusters, and on its largest."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

for name, conn_id in {"bench_pool": "gpu_cluster_pool", "bench_pool_first": "gpu01"}.items():
    with DAG(name, schedule=None, catchup=False, max_active_tasks=200, params={"seconds": 3.0}):
        SubmitGpuJobOperator.partial(
            task_id="train",
            gpu_cluster_conn_id=conn_id,
            gpus=1,
            time_limit=30,
            wait_for_completion=True,
            deferrable=True,
            launch_from_trigger=True,
            get_logs=False,
            max_active_tis_per_dag=200,
        ).expand(command=[f"sleep {{{{ params.seconds }}}} # {number}" for number in range(100)])
