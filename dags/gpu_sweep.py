"""
Try several settings at once, as one array of jobs: each has its own state, log and outputs.

Only settings that failed are tried again. In the end the best of them is named.
"""

from __future__ import annotations

# [START gpu_sweep]
import itertools
import os
from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))


@dag(schedule=None, catchup=False, tags=["gpu"], doc_md=__doc__)
def gpu_sweep():
    @task
    def choose() -> list[list]:
        """List the settings to try: what each job gets after the arguments of all."""
        rates, widths = (0.001, 0.004), (32, 64)
        return [["--learning_rate", rate, "--hidden", width] for rate, width in itertools.product(rates, widths)]

    settings = choose()
    train = SubmitGpuJobOperator(
        task_id="train",
        code="train_digits",
        data="data/digits.csv",
        entry_script="train.py",
        script_args=["--epochs", "20"],
        array=settings,
        gpus=1,
        memory="2G",
        time_limit=timedelta(minutes=10),
        env={"SEED": "7"},
        wait_for_completion=True,
        deferrable=True,
        retries=1,
        retry_delay=timedelta(seconds=30),
    )
    results = CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
        include=["model.pkl", "metrics.json"],
    )

    @task
    def best(settings: list[list], result: dict) -> str:
        """Name the settings with the highest accuracy."""
        accuracy = [metrics["accuracy"] for metrics in result["metrics"]]
        index = accuracy.index(max(accuracy))
        summary = f"{settings[index]}: accuracy {accuracy[index]:.1%}, in {result['destination']}/{index}"
        print(summary)
        return summary

    best(settings, results.output)


gpu_sweep()
# [END gpu_sweep]
