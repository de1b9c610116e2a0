"""A job that goes on by itself, whatever ends its attempts, in a task without a retry."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

with DAG("night", schedule=None):
    SubmitGpuJobOperator(
        task_id="train",
        code=os.environ.get("TEST_TRAINING", "/dev/null"),
        entry_script="training.py",
        pass_output_dirs=False,
        env={
            "LEDGER": os.environ.get("TEST_RUNS", "") + "-{{ run_id }}",
            "STEP_S": "0.1",
            "SAVE_EVERY": "5",
        },
        time_limit=15,
        warn_before=2,
        grace=10,
        # The other budgets are those that every job has; three supervisors are killed, one more than it allows.
        recover={"time_limit": "progress", "lost": 3},
        wait_for_completion=True,
        deferrable=True,
        retries=0,
    )
