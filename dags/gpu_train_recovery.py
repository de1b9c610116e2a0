"""
A training that goes on through preemptions and time limits, in one try of its task.

Two minutes before its time limit, or when it is to be stopped for another reason, the training is told so. It saves a
checkpoint and ends with exit code 85, and the cluster starts it again from there.
"""

from __future__ import annotations

# [START gpu_train_recovery]
import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.retry_policies.gpu_job import GpuJobRetryPolicy

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))

with DAG("gpu_train_recovery", schedule=None, catchup=False, tags=["gpu"], doc_md=__doc__):
    train = SubmitGpuJobOperator(
        task_id="train",
        code="train_digits",
        data="data/digits.csv",
        entry_script="train.py",
        script_args=["--epochs", "40", "--hidden", "512"],
        gpus=1,
        memory="2G",
        time_limit=timedelta(hours=4),
        warn_before=timedelta(minutes=2),  # then the training gets USR1: it saves, and exits with 85
        grace=timedelta(minutes=1),  # what it has to end after TERM
        recover={"time_limit": "progress", "out_of_memory": (2, 1.5)},  # besides preemptions and the like
        wait_for_completion=True,
        deferrable=True,
        retries=3,  # for what the cluster cannot recover from by itself, such as a login that fails
        retry_policy=GpuJobRetryPolicy(),
    )
    results = CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
        include=["model.pkl", "*.json"],
    )
    train >> results
# [END gpu_train_recovery]
