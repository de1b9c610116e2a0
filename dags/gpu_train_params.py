"""
Train with settings of your own: press **Trigger** and fill in the form.

Submit and wait are one task here, so that its retries are attempts of the job: the next attempt continues
from the last checkpoint of the one before.
"""

from __future__ import annotations

# [START gpu_train_params]
import os
from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

MODELS = os.environ.get("MODELS_DIR", os.path.expanduser("~/models"))

PARAMS = {
    "epochs": Param(
        20,
        type="integer",
        minimum=1,
        maximum=1000,
        title="Epochs",
        description="Passes over the data.",
    ),
    "batch_size": Param(
        64,
        type="integer",
        enum=[16, 32, 64, 128, 256],
        title="Batch size",
        description="Images a step.",
    ),
    "hidden": Param(
        64,
        type="integer",
        minimum=1,
        maximum=4096,
        title="Hidden units",
        description="Size of the network.",
    ),
    "learning_rate": Param(
        0.002,
        type="number",
        exclusiveMinimum=0,
        maximum=1,
        title="Learning rate",
        description="Step size of the optimizer (Adam).",
    ),
    "seed": Param(
        7,
        type="integer",
        minimum=0,
        maximum=2**31,
        title="Seed",
        description="Same seed, same model.",
    ),
    "gpus": Param(1, type="integer", minimum=1, maximum=16, title="GPUs", description="Whole GPUs."),
    "gpu_type": Param(
        None,
        type=["null", "string"],
        title="GPU type",
        description="Part of a GPU's name, such as A100. Empty: any.",
        examples=["A100", "H100", "L4"],
    ),
    "memory": Param(
        "2G",
        type="string",
        pattern=r"^[0-9]+(\.[0-9]+)?[KMGT]?$",
        title="Memory",
        description="Host memory the job may use, such as 500M or 32G.",
    ),
    "time_limit_minutes": Param(
        10,
        type="integer",
        minimum=1,
        maximum=7 * 24 * 60,
        title="Time limit (minutes)",
        description="A job that runs longer is stopped.",
    ),
    "priority": Param(
        "normal",
        type="string",
        enum=["high", "normal", "low"],
        title="Priority",
        description="Who waits is served in this order.",
    ),
    "gpu_cluster_conn_id": Param(
        "gpu_cluster_default",
        type="string",
        minLength=1,
        title="Cluster",
        description="Connection of the cluster to run on.",
    ),
}

with DAG("gpu_train_params", schedule=None, catchup=False, tags=["gpu"], params=PARAMS, doc_md=__doc__):
    train = SubmitGpuJobOperator(
        task_id="train",
        code="train_digits",
        data="data/digits.csv",
        entry_script="train.py",
        script_args=[
            "--epochs={{ params.epochs }}",
            "--batch_size={{ params.batch_size }}",
            "--hidden={{ params.hidden }}",
            "--learning_rate={{ params.learning_rate }}",
        ],
        gpus="{{ params.gpus }}",
        gpu_type="{{ params.gpu_type }}",
        memory="{{ params.memory }}",
        time_limit="{{ params.time_limit_minutes * 60 }}",
        priority="{{ params.priority }}",
        env={"SEED": "{{ params.seed }}"},
        gpu_cluster_conn_id="{{ params.gpu_cluster_conn_id }}",
        wait_for_completion=True,
        retries=2,
        retry_delay=timedelta(seconds=30),
    )
    results = CollectGpuJobOperator(
        task_id="collect",
        job=train.output,
        destination=MODELS + "/{{ dag.dag_id }}/{{ run_id }}",
        include=["model.pkl", "*.json"],
    )
    train >> results
# [END gpu_train_params]
