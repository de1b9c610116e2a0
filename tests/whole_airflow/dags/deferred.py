"""Jobs whose tasks wait in the triggerer."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, task
from airflow.sdk.definitions.xcom_arg import XComArg

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

# Each run of the user's code appends a line to this file, outside the job's directory.
RUNS = os.environ.get("TEST_RUNS", "/dev/null")
HOOKS = os.environ.get("TEST_HOOKS", "http://127.0.0.1")
MARK = f"echo $JOB_ID $ATTEMPT >> {RUNS}"

# A line on each of both streams, a progress bar, a character in two pieces, bytes that are none, and no end.
AWKWARD = r"""
i=0
until [ -e "$OUTPUT_DIR/stop" ]; do
  i=$((i + 1))
  printf 'line %d of the output\n' $i
  printf '\r%d%%' $i; printf '\r%d%% done\n' $i
  printf 'sno\xc3'; sleep 0.02; printf '\xb6re bad \xff\xfe\n'
  printf '{"step": %d}\n' $i >> $PROGRESS_FILE
done
printf 'no end'
"""

for dag_id, launch_from_trigger in {"deferred_long_job": False, "launched_by_trigger": True}.items():
    with DAG(dag_id, schedule=None):
        SubmitGpuJobOperator(
            task_id="train",
            command=f"{MARK}; sleep 600 & echo child $!; wait",
            wait_for_completion=True,
            deferrable=True,
            launch_from_trigger=launch_from_trigger,
            retries=0,
        )

with DAG("deferred_output", schedule=None):
    SubmitGpuJobOperator(
        task_id="train",
        command=f"{MARK}\n{AWKWARD}",
        time_limit=3600,
        wait_for_completion=True,
        deferrable=True,
        launch_from_trigger=True,
        notify={"time_limit_in": 3600, "queued_for": timedelta(hours=1), "recovered": True},
        notifier=GpuJobNotifier(webhook_url=f"{HOOKS}/deferred"),
        retries=1,
        retry_delay=timedelta(seconds=1),
    )

with DAG("deferred_failure", schedule=None):
    SubmitGpuJobOperator(
        task_id="train",
        command=f"{MARK}; echo last words; exit 3",
        wait_for_completion=True,
        deferrable=True,
        retries=0,
    )

with DAG("deferred_time_out", schedule=None):
    SubmitGpuJobOperator(
        task_id="train",
        command=f"{MARK}; sleep 600",
        wait_for_completion=True,
        deferrable=True,
        # Started before all tests and looked at after them; a slow machine needs some of it for the launch.
        execution_timeout=timedelta(seconds=90),
        retries=0,
    )

with DAG("deferred_sensor", schedule=None):
    train = SubmitGpuJobOperator(
        task_id="train", command=f"{MARK}; for i in $(seq 30); do echo line $i; sleep 0.2; done"
    )
    GpuJobSensor(task_id="no_worker", job=train.output, deferrable=True)
    GpuJobSensor(
        task_id="two_workers", job=train.output, deferrable=True, start_from_trigger=False, end_from_trigger=False
    )

with DAG("keeps_trigger_ids", schedule=None):
    DateTimeSensorAsync(task_id="keep", target_time="2100-01-01T00:00:00+00:00", start_from_trigger=True)


def many_jobs(count: int) -> None:
    """Define a DAG that launches so many jobs and waits for each of them."""

    @task(do_xcom_push=False)
    def launch(*, ti: Any = None, run_id: str | None = None) -> None:
        with GpuClusterHook("gpu_cluster_far") as hook:
            for number in range(count):
                command = f"for i in $(seq 25); do echo {number}: line $i; sleep 1; done"
                handle = hook.submit(job_id=f"{run_id}-{number}", command=command, gpus=1)
                ti.xcom_push(f"job_{number}", handle)

    with DAG(f"deferred_{count}", schedule=None):
        launched: Any = launch()
        for number in range(count):
            # Each starts and ends in the triggerer, so that many of them need no worker.
            GpuJobSensor(task_id=f"done_{number}", job=XComArg(launched.operator, key=f"job_{number}"), deferrable=True)


for count in (10, 50):
    many_jobs(count)
