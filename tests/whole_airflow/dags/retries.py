"""Tasks that are retried: as the policy knows, or to start the next attempt of a job."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.retry_policies.gpu_job import GpuJobRetryPolicy
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

COMMAND = 'echo "$JOB_ID $ATTEMPT $TOKEN" >>{runs}; [ "$ATTEMPT" = 3 ] || kill -KILL $PPID'
ENV = {"TOKEN": "hush-hush"}
POLICY = GpuJobRetryPolicy(delay=timedelta(seconds=1))

HOOKS = os.environ.get("TEST_HOOKS", "http://127.0.0.1")

with DAG(
    "retried_by_policy",
    schedule=None,
    default_args={"retries": 3, "retry_policy": POLICY},
    on_failure_callback=GpuJobNotifier(webhook_url=f"{HOOKS}/dag"),
):
    SubmitGpuJobOperator(
        task_id="mistake",
        command="exit 3",
        wait_for_completion=True,
        on_failure_callback=GpuJobNotifier(webhook_url=f"{HOOKS}/task"),
    )

    SubmitGpuJobOperator(
        task_id="fine",
        command="true",
        wait_for_completion=True,
        on_success_callback=GpuJobNotifier(webhook_url=f"{HOOKS}/success"),
    )

    @task
    def fault(ti: Any = None) -> None:
        """Fail once, as a launch does while the cluster cannot be reached."""
        if ti.try_number == 1:
            raise GpuClusterConnectionError("no route to host")

    fault()

# The job goes on by itself once after it was lost, and once more when its sensor is retried.
with DAG("resubmitted", schedule=None):
    launched = SubmitGpuJobOperator(
        task_id="train",
        command=COMMAND.format(runs=os.environ.get("TEST_RUNS", "/dev/null")),
        env=ENV,
        recover={"lost": 1},
    )
    GpuJobSensor(
        task_id="done",
        job=launched.output,
        deferrable=True,
        resubmit_on_retry=True,
        env=ENV,
        retries=1,
        retry_delay=timedelta(seconds=1),
        on_retry_callback=GpuJobNotifier(webhook_url=f"{HOOKS}/retry"),
    )
