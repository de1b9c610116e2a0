"""
Try several settings, each on the cluster of a pool where it starts first.

If the cluster of a job is out of reach for ten minutes, the job is launched on another one, as soon as it is certain
that the first one cannot run it.
"""

from __future__ import annotations

# [START gpu_train_pool]
import os
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))
# A connection of type gpu_cluster_pool; a list such as ["gpu01", "gpu02", "slurm-a"] does as well.
POOL = "gpu_cluster_pool"

with DAG("gpu_train_pool", schedule=None, catchup=False, tags=["gpu"], doc_md=__doc__):
    train = SubmitGpuJobOperator.partial(
        task_id="train",
        gpu_cluster_conn_id=POOL,
        code="train_digits",
        data="data/digits.csv",
        entry_script="train.py",
        gpus=1,
        memory="2G",
        time_limit=timedelta(minutes=10),
        failover_after=timedelta(minutes=10),
        orphan_timeout=timedelta(minutes=15),  # what runs where nobody can reach it ends by itself
        wait_for_completion=True,
        deferrable=True,
        retries=2,
    ).expand(script_args=[["--epochs", "40", "--learning_rate", rate] for rate in ("0.001", "0.002", "0.004")])

    # The handle of each job says where it is.
    results = CollectGpuJobOperator.partial(
        task_id="collect",
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}/{{ ti.map_index }}",
        include=["model.pkl", "metrics.json"],
    ).expand(job=train.output)

    @task
    def best(collected: list[dict]) -> str:
        """Name the model with the highest accuracy."""
        result = max(collected, key=lambda result: result["metrics"]["accuracy"])
        summary = f"accuracy {result['metrics']['accuracy']:.1%}, in {result['destination']}"
        print(summary)
        return summary

    best(results.output)
# [END gpu_train_pool]
