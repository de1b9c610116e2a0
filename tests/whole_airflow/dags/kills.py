"""Jobs that last, for tests that end their tasks in every way there is."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

# Each run of the user's code appends a line to this file, outside the job's directory.
RUNS = os.environ.get("TEST_RUNS", "/dev/null")
MARK = f"echo $JOB_ID $ATTEMPT >> {RUNS}"

with DAG("waits_for_long_job", schedule=None):
    SubmitGpuJobOperator(
        task_id="train", command=f"{MARK}; sleep 600", wait_for_completion=True, poll_interval=1, retries=0
    )

with DAG("waits_for_short_job", schedule=None):
    SubmitGpuJobOperator(
        task_id="train",
        command=f"{MARK}; for i in $(seq 300); do echo line $i; sleep 0.1; done",
        wait_for_completion=True,
        poll_interval=1,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
