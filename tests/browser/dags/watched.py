"""A job that people watch for as long as they wish."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

STEPS = """
for step in $(seq {{ dag_run.conf.get('seconds', 3) }}); do
  echo "step $step"
  echo "{\\"step\\": $step, \\"total\\": {{ dag_run.conf.get('seconds', 3) }}}" >>"$PROGRESS_FILE"
  sleep 1
done
"""


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def watched() -> None:
    """It takes as many seconds and GPUs as its run says, 3 and 1 by default."""
    SubmitGpuJobOperator(
        task_id="train",
        command=STEPS,
        gpus="{{ dag_run.conf.get('gpus', 1) }}",
        wait_for_completion=True,
        deferrable=True,
    )


watched()
