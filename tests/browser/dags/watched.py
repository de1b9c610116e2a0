"""A job that people watch for as long as they wish."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

STEPS = """
trap 'echo saved' USR1
until [ -e "{{ dag_run.conf['until'] }}" ]; do
  step=$((step + 1))
  echo "step $step"
  echo "{\\"step\\": $step}" >>"$PROGRESS_FILE"
  sleep 0.5
done
"""


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def watched() -> None:
    """It has as many GPUs as its run says, one by default, and goes on until the file that its run names is there."""
    gpus = "{{ dag_run.conf.get('gpus', 1) }}"
    SubmitGpuJobOperator(task_id="train", command=STEPS, gpus=gpus, wait_for_completion=True, deferrable=True)


watched()
