"""Runs that Airflow or a user ends as a whole, without asking their tasks."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

MODELS = os.environ.get("MODELS_DIR", "/tmp")

with DAG("group_times_out", schedule=None, dagrun_timeout=timedelta(seconds=40)):
    GpuJobTaskGroup("train", command="sleep 600", destination=MODELS + "/{{ run_id }}", poke_interval=60)

with DAG("deferred_run_times_out", schedule=None, dagrun_timeout=timedelta(seconds=20)):
    SubmitGpuJobOperator(task_id="train", command="sleep 600", wait_for_completion=True, deferrable=True)

with DAG("group_of_long_job", schedule=None):

    @task
    def report(collected: object) -> None: ...

    train = GpuJobTaskGroup("train", command="sleep 600", destination=MODELS + "/{{ run_id }}", poke_interval=60)
    report(train.output)
