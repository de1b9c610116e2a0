"""DAGs whose jobs are looked at in a browser."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

STEPS = """
for step in 1 2 3 4 5; do
  echo "{\\"step\\": $step, \\"total\\": 5, \\"loss\\": 0.$((90 - 10 * step))}" >> "$PROGRESS_FILE"
  echo "step $step of 5"
done
echo '{"accuracy": 0.97}' > "$OUTPUT_DIR/metrics.json"
"""


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def seen() -> None:
    """A job that succeeds at once, and one that fails."""
    SubmitGpuJobOperator(task_id="train", command=STEPS, gpus=1, wait_for_completion=True, deferrable=True)
    SubmitGpuJobOperator(
        task_id="fails",
        command="echo 'CUDA out of memory' >&2; exit 1",
        gpus=1,
        wait_for_completion=True,
        deferrable=True,
    )


seen()
