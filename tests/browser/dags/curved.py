"""A training that fails once, goes on by itself, and reports its numbers."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

TRAIN = """
first=$((ATTEMPT * 20 - 19))
for step in $(seq $first $((first + 39))); do
  loss=0.$((99 - step)) rate=1e-$((step % 5))
  echo "{\\"step\\": $step, \\"epoch\\": $((step / 10)), \\"train\\": {\\"loss\\": $loss}, \\"rate\\": $rate}"
done >> "$PROGRESS_FILE"
[ "$ATTEMPT" = 2 ] || exit 7
"""


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def curved() -> None:
    """Forty steps in its first attempt, and forty from the twenty-first on in its second."""
    SubmitGpuJobOperator(
        task_id="train",
        command=TRAIN,
        gpus=2,
        recover={"user_error": 1},
        wait_for_completion=True,
        deferrable=True,
    )


curved()
