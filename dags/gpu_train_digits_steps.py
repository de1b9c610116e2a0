"""The same job with its steps spelled out: submit, wait, collect."""

from __future__ import annotations

# [START gpu_train_digits_steps]
import os

from airflow.sdk import DAG

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))

with DAG("gpu_train_digits_steps", schedule=None, catchup=False, tags=["gpu"], doc_md=__doc__):
    train = SubmitGpuJobOperator(
        task_id="train",
        code="train_digits",
        entry_script="train.py",
        script_args=["--epochs", "20"],
        data=["data/digits.csv"],
        gpus=2,
        memory="2G",
        time_limit=600,
        env={"SEED": "7"},
    )
    done = GpuJobSensor(task_id="done", job=train.output, poke_interval=10)
    results = CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
        include=["model.pkl", "metrics.json"],
    )
    train >> done >> results
# [END gpu_train_digits_steps]
