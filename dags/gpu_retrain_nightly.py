"""
Train anew every night. While the job runs, no worker waits for it: Airflow's triggerer does.

With GPU_JOBS_MAIL_TO in the environment, and a connection smtp_default, a night that fails is told by mail.

It is paused until you turn it on.
"""

from __future__ import annotations

# [START gpu_retrain_nightly]
import os
from datetime import timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG

from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))
MAIL_TO = os.environ.get("GPU_JOBS_MAIL_TO")
tell = [GpuJobNotifier(via=SmtpNotifier(to=MAIL_TO))] if MAIL_TO else []

with DAG(
    "gpu_retrain_nightly",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["gpu"],
    doc_md=__doc__,
):
    train = SubmitGpuJobOperator(
        task_id="train",
        code="train_digits",
        data="data/digits.csv",
        entry_script="train.py",
        script_args=["--epochs", "40"],
        gpus=1,
        memory="2G",
        time_limit=timedelta(hours=1),
        env={"SEED": "7"},
        priority="low",
        wait_for_completion=True,
        deferrable=True,
        retries=2,
        retry_delay=timedelta(minutes=5),
        on_failure_callback=tell,
    )
    results = CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
        include=["model.pkl", "*.json"],
    )
    train >> results
# [END gpu_retrain_nightly]
