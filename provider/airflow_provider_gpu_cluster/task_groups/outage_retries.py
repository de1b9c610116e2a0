"""Further retries of a group's tasks, for outages of Airflow itself."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, RetryDecision, RetryPolicy

from airflow_provider_gpu_cluster.hooks.airflow_outage import is_outage

if TYPE_CHECKING:
    from airflow.sdk import Context

# With 15 s before the first, twice as long before each next one, and two minutes at most: six minutes in all.
RETRIES = 5
DELAY = timedelta(seconds=15)
LONGEST_DELAY = timedelta(minutes=2)


def outlast_outages(task: BaseOperator) -> None:
    """
    Give a task retries that last longer than a restart of Airflow's API server.

    While it does not answer, Airflow 3.3 fails each task that is to start, within seconds. That uses up retries, and
    no code of a task can do anything about it. A task that fails for another reason has only the retries that the
    DAG's author gave it, and the author's own ``retry_policy`` is left alone.
    """
    own = task.retries or 0
    if task.retry_policy is not None or own >= RETRIES:
        return
    task.retry_policy = OutageRetries(own, task.retry_delay if own and not task.retry_exponential_backoff else None)
    task.retries = RETRIES
    task.retry_delay = max(task.retry_delay, DELAY) if own else DELAY
    if not task.retry_exponential_backoff:
        task.retry_exponential_backoff = 2.0
        task.max_retry_delay = max(LONGEST_DELAY, task.retry_delay)


class OutageRetries(RetryPolicy):
    """
    Keeps retries for outages of Airflow's API server.

    :param own: how often the task may be retried after any other error.
    :param delay: time before such a retry; None for the task's own.
    """

    def __init__(self, own: int, delay: timedelta | None) -> None:
        self.own = own
        self.delay = delay

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide about a task that has failed with this error."""
        if is_outage(exception):
            return RetryDecision.retry(reason="Airflow's API server did not answer")
        # After a clear, tries are counted on, and max_tries has grown by as many.
        used = RETRIES - (max_tries - try_number + 1)
        return RetryDecision.retry(self.delay) if used < self.own else RetryDecision.fail()

    def serialize(self) -> dict[str, Any]:
        """Return the policy as plain JSON values."""
        return {"own": self.own, "delay": None if self.delay is None else self.delay.total_seconds()}
