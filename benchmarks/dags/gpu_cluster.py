"""One job of five seconds in three ways."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

COMMAND = "sleep 5"
INTERVAL = 5  # seconds, as the rival's default; the sensor makes it 7.5, see shortest_absence_s()

with DAG("bench_steps", schedule=None):
    submit = SubmitGpuJobOperator(task_id="submit", command=f'{COMMAND}; echo 1 > "$OUTPUT_DIR/done"')
    wait = GpuJobSensor(task_id="wait", job=submit.output, poke_interval=INTERVAL)
    (
        submit
        >> wait
        >> CollectGpuJobOperator(task_id="collect", job=submit.output, destination=os.environ["BENCH_RESULTS"])
    )

with DAG("bench_one_task", schedule=None):
    SubmitGpuJobOperator(task_id="train", command=COMMAND, wait_for_completion=True, poll_interval=INTERVAL)

with DAG("bench_deferrable", schedule=None):
    SubmitGpuJobOperator(task_id="train", command=COMMAND, wait_for_completion=True, deferrable=True)
