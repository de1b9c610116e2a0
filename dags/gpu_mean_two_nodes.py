"""Run one job on two nodes of a Slurm cluster at once. The connection's engine must be slurm."""

from __future__ import annotations

# [START gpu_mean_two_nodes]
import os

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))

with DAG("gpu_mean_two_nodes", schedule=None, catchup=False, tags=["gpu"], doc_md=__doc__):
    mean = SubmitGpuJobOperator(
        task_id="mean",
        code="mean_digits",
        data="data/digits.csv",
        entry_script="mean.py",
        nodes=2,
        gpus=1,  # on each of them
        time_limit=600,
        wait_for_completion=True,
    )
    results = CollectGpuJobOperator(
        task_id="collect",
        job=mean.output,
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
        include=["*.json"],
    )
    mean >> results
# [END gpu_mean_two_nodes]
