"""A job that prints all kinds of things, and goes on printing."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

PRINTS = r"""
printf '\033[1;31mERROR\033[0m \033[38;5;226myellow\033[0m \033[7minverse\033[0m\n'
printf 'a\342\200\256b <script>alert(1)</script> \033]0;title\007 %s\n' "$WANDB_API_KEY"
for step in 1 2 3; do printf '\r%d/3 ###' $step; done
echo
seq -f 'step %.0f of many' 20000
for step in $(seq 3000); do echo "later $step"; sleep 0.2; done
"""


@dag(schedule=None, default_args={"owner": "carol", "retries": 0})
def printed() -> None:
    """Its log has a secret, colours, and more lines than a page holds."""
    SubmitGpuJobOperator(
        task_id="train",
        command=PRINTS,
        env={"WANDB_API_KEY": "wandb-0123456789"},
        gpus=1,
        wait_for_completion=True,
        deferrable=True,
        get_logs=False,
    )


printed()
