"""The DAGs on the pictures of the docs: a training that runs, one that waits, one that has failed, and a sweep."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

OUT_OF_MEMORY = """
echo "resnet-152 on 1 GPU, batch 512"
sleep 2
cat >&2 <<'END'
Traceback (most recent call last):
  File "train.py", line 87, in <module>
    loss = model(batch).mean()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB.
END
exit 1
"""
SWEEP = [["--rate", rate, "--width", width] for rate in (0.1, 0.03, 0.01, 0.003, 0.001) for width in (64, 128)]


def train(task_id: str, *, steps: int, pause: float, gpus: int = 1, **arguments: Any) -> SubmitGpuJobOperator:
    """Return a task that trains."""
    return SubmitGpuJobOperator(
        task_id=task_id,
        code="pictured_training",
        entry_script="train.py",
        script_args=["--steps", steps, "--pause", pause],
        pass_output_dirs=False,
        gpus=gpus,
        memory="1G",
        time_limit=7200,
        wait_for_completion=True,
        deferrable=True,
        **arguments,
    )


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def vision() -> None:
    """Jobs that have ended, well and badly."""
    warm_up = train("warm_up", steps=60, pause=0.1)
    CollectGpuJobOperator(task_id="collect", job=warm_up.output, destination="/tmp/pictured/{{ run_id }}")
    train("sweep", steps=40, pause=0.05, array=SWEEP)
    SubmitGpuJobOperator(
        task_id="large_batch", command=OUT_OF_MEMORY, gpus=1, wait_for_completion=True, deferrable=True
    )


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def vision_long() -> None:
    """A training that goes on while the pictures are taken."""
    train("finetune", steps=6000, pause=0.5, gpus=2)


@dag(schedule=None, default_args={"owner": "dave", "retries": 0})
def vision_waiting() -> None:
    """A training that waits for its GPUs meanwhile."""
    train("distill", steps=10, pause=0.5, gpus=4)


vision()
vision_long()
vision_waiting()
