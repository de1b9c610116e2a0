"""Tasks that wait for a job until a time limit is over, one task for each row of the table in docs/timeouts.md."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import CancelGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

LONG = "sleep 600"
LIMIT = timedelta(seconds=20)

SUBMIT_MODES: dict[str, dict[str, Any]] = {"synchronous": {}, "deferrable": {"deferrable": True}}
# A deferrable sensor does the same whether it has begun on a worker or not.
SENSOR_MODES: dict[str, dict[str, Any]] = {
    "synchronous": {"mode": "poke", "poke_interval": 1},
    "reschedule": {"mode": "reschedule", "poke_interval": 5},
    "deferrable": {"deferrable": True},
    "deferrable_from_worker": {"deferrable": True, "start_from_trigger": False},
}


def submit_and_wait(**arguments: Any) -> None:
    """Add a task for each mode in which a submit operator waits."""
    for mode, its_own in SUBMIT_MODES.items():
        SubmitGpuJobOperator(
            task_id=f"submit_{mode}",
            wait_for_completion=True,
            poll_interval=1,
            **{"command": LONG, **arguments},
            **its_own,
        )


def sensors(job: Any, **arguments: Any) -> None:
    """Add a sensor for each mode, all of them for one job."""
    for mode, its_own in SENSOR_MODES.items():
        GpuJobSensor(task_id=f"sensor_{mode}", job=job, **arguments, **its_own)


# A retry would begin after the test: a task that could be retried says so by its state.
RETRY = {"retries": 1, "retry_delay": timedelta(days=1)}

with DAG("time_limit", schedule=None, default_args=RETRY) as time_limit:
    submit_and_wait(time_limit=3)
    sensors(SubmitGpuJobOperator(task_id="launch", command=LONG, time_limit=3).output)

with DAG("execution_timeout", schedule=None, default_args=RETRY) as execution_timeout:
    submit_and_wait(execution_timeout=LIMIT)
    # The job has an end, since one of the sensors waits for it.
    sensors(SubmitGpuJobOperator(task_id="launch", command="sleep 60").output, execution_timeout=LIMIT)

with DAG("timeout", schedule=None, default_args=RETRY) as timeout:
    sensors(SubmitGpuJobOperator(task_id="launch", command=LONG).output, timeout=LIMIT)
    guarded = SubmitGpuJobOperator(task_id="launch_guarded", command=LONG)
    done = GpuJobSensor(task_id="sensor_guarded", job=guarded.output, timeout=LIMIT, deferrable=True)
    cancel = CancelGpuJobOperator(task_id="cancel_guarded", job=guarded.output)
    [guarded, done] >> cancel.as_teardown()

# Run without a triggerer: it is the scheduler that ends a deferral.
with DAG("deferral", schedule=None, default_args=RETRY) as deferral:
    SubmitGpuJobOperator(
        task_id="submit_deferrable", command=LONG, wait_for_completion=True, deferrable=True, execution_timeout=LIMIT
    )
    launch = SubmitGpuJobOperator(task_id="launch", command=LONG)
    for mode in ("deferrable", "deferrable_from_worker"):
        GpuJobSensor(task_id=f"sensor_{mode}", job=launch.output, timeout=LIMIT, **SENSOR_MODES[mode])

with DAG("dagrun_timeout", schedule=None, dagrun_timeout=timedelta(seconds=90), default_args=RETRY) as dagrun_timeout:
    submit_and_wait()
    sensors(SubmitGpuJobOperator(task_id="launch", command=LONG).output)

# In the order in which they are started.
DAGS = {dag.dag_id: dag for dag in (dagrun_timeout, time_limit, execution_timeout, timeout, deferral)}
