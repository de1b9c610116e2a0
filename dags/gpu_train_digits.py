"""Train on a GPU cluster, the whole life of the job in one task group."""

from __future__ import annotations

# [START gpu_train_digits]
import os
from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))


@dag(schedule=None, catchup=False, tags=["gpu"], doc_md=__doc__)
def gpu_train_digits():
    train = GpuJobTaskGroup(
        "train",
        code="train_digits",
        data="data/digits.csv",
        entry_script="train.py",
        script_args=["--epochs", "40", "--hidden", "512"],
        gpus=1,
        cpus=2,
        memory="2G",
        time_limit=timedelta(minutes=10),
        env={"SEED": "7"},
        deferrable=True,  # Airflow's triggerer waits: no worker is held, and output appears as it comes
        include=["model.pkl", "*.json"],
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
    )

    @task
    def report(result: dict) -> str:
        """Say what came home."""
        accuracy = result["metrics"]["accuracy"]
        summary = f"{len(result['files'])} files in {result['destination']}, accuracy {accuracy:.1%}"
        print(summary)
        return summary

    report(train.output)


gpu_train_digits()
# [END gpu_train_digits]
