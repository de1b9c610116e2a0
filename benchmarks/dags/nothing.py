"""Twenty mapped tasks that do nothing: what Airflow itself takes to start and end as many processes."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("bench_mapped_nothing", schedule=None):

    @task
    def nothing(number: int) -> None:
        """Do nothing."""

    nothing.expand(number=list(range(20)))
