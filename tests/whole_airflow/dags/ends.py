"""Runs that Airflow or a user ends as a whole, without asking their tasks."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_gpu_cluster.callbacks.gpu_job import cancel_jobs_of_run
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

MODELS = os.environ.get("MODELS_DIR", "/tmp")

# Started before all tests and looked at after them; a slow machine needs much of this for the first two tasks.
with DAG("group_times_out", schedule=None, dagrun_timeout=timedelta(seconds=180)):
    GpuJobTaskGroup("train", command="sleep 600", destination=MODELS + "/{{ run_id }}", poke_interval=60)

with DAG(
    "steps_time_out",
    schedule=None,
    dagrun_timeout=timedelta(seconds=40),
    on_failure_callback=cancel_jobs_of_run,
):
    jobs = SubmitGpuJobOperator.partial(task_id="train").expand(command=["sleep 600", "sleep 601"])
    GpuJobSensor.partial(task_id="wait", poke_interval=60).expand(job=jobs.output)

with DAG("deferred_run_times_out", schedule=None, dagrun_timeout=timedelta(seconds=120)):
    SubmitGpuJobOperator(task_id="train", command="sleep 600", wait_for_completion=True, deferrable=True)

with DAG("group_of_long_job", schedule=None):

    @task
    def report(collected: object) -> None: ...

    train = GpuJobTaskGroup("train", command="sleep 600", destination=MODELS + "/{{ run_id }}", poke_interval=60)
    report(train.output)

for name, default_args in {
    "group_in_outage": {},
    "impatient_group_in_outage": {"retries": 1, "retry_delay": timedelta(seconds=5)},
}.items():
    with DAG(name, schedule=None, default_args=default_args):
        GpuJobTaskGroup(
            "train",
            command="sleep 30; echo done >$OUTPUT_DIR/result",
            destination=MODELS + "/{{ run_id }}",
            poke_interval=5,
        )
