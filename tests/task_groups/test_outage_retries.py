"""The retries of a group's tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, ExceptionRetryPolicy, RetryAction
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_gpu_cluster.exceptions import GpuJobFailed
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

AWAY = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": None}))
FAILED = GpuJobFailed("it failed", job_id="job-1", state="FAILED", reason="user_error")
NAMES = ("stage", "submit", "wait", "collect", "cancel")


def tasks(**default_args: Any) -> list[Any]:
    with DAG("lab", schedule=None, default_args=default_args):
        group = GpuJobTaskGroup("train", command="true", destination="/x")
    return [getattr(group, name) for name in NAMES]


def delays(task: Any) -> list[timedelta]:
    """Return the times before each retry, as Airflow's scheduler reckons them, without what it adds at random."""
    return [
        min(task.retry_delay * task.retry_exponential_backoff**n, task.max_retry_delay) for n in range(task.retries)
    ]


@pytest.mark.parametrize("given", [{}, {"retries": 1, "retry_delay": timedelta(seconds=10)}])
def test_all_tasks_outlast_five_minutes(given: dict[str, Any]) -> None:
    for task in tasks(**given):
        assert task.retries == 5
        assert sum(delays(task), timedelta()) > timedelta(minutes=5), task.task_id


@pytest.mark.parametrize("cleared_after", [0, 3])
@pytest.mark.parametrize("own", [0, 2])
def test_other_errors_have_the_retries_that_the_author_gave(own: int, cleared_after: int) -> None:
    for task in tasks(retries=own, retry_delay=timedelta(seconds=7)):
        assert task.retry_policy is not None
        actions = []
        for number in range(1, own + 2):
            numbers: dict[str, Any] = {"try_number": cleared_after + number, "max_tries": cleared_after + task.retries}
            decision = task.retry_policy.evaluate(FAILED, **numbers)
            actions.append(decision.action)
            if decision.action is RetryAction.RETRY:
                assert decision.retry_delay == timedelta(seconds=7)
            assert task.retry_policy.evaluate(AWAY, **numbers).action is RetryAction.RETRY
        assert actions == [RetryAction.RETRY] * own + [RetryAction.FAIL]


def test_what_the_author_has_decided_is_left_alone() -> None:
    policy = ExceptionRetryPolicy(rules=[])
    for task in tasks(retry_policy=policy, retries=1):
        assert (task.retries, task.retry_policy) == (1, policy)
    for task in tasks(retries=9, retry_delay=timedelta(seconds=1)):
        assert (task.retries, task.retry_policy, task.retry_delay) == (9, None, timedelta(seconds=1))
