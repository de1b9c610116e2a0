"""Twenty mapped tasks that do nothing, or only wait: what Airflow itself takes for as many."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, BaseOperator, task, timezone

if TYPE_CHECKING:
    from airflow.sdk import Context

with DAG("bench_mapped_nothing", schedule=None):

    @task
    def nothing(number: int) -> None:
        """Do nothing."""

    nothing.expand(number=list(range(20)))


class Sleep(BaseOperator):
    """Defer for some seconds, and end from the trigger: what a deferrable operator takes that does nothing else."""

    def __init__(self, *, seconds: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context: Context) -> None:
        """Defer."""
        until = timezone.utcnow() + timedelta(seconds=self.seconds)
        self.defer(trigger=DateTimeTrigger(moment=until, end_from_trigger=True), method_name="execute_complete")


with DAG("bench_mapped_sleep", schedule=None):
    Sleep.partial(task_id="sleep").expand(seconds=[20] * 20)
