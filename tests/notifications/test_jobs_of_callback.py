from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier
from airflow_provider_gpu_cluster.notifications.jobs_of_callback import FoundJob, jobs_of_callback
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.tasks.job_notes import StoredXCom


class DagProcessorTask(SimpleNamespace):
    """A task instance as the DAG processor gives it to a callback: without a state."""

    dag_id, run_id, task_id, map_index = "lab", "run-1", "train", 3


@pytest.fixture(autouse=True)
def no_xcoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoredXCom, "get_one", lambda **place: None)


def found(ti: Any, notifier: object, **callbacks: Any) -> FoundJob:
    task = SubmitGpuJobOperator(task_id="train", command="true", retries=1, **callbacks)
    (job,) = jobs_of_callback({"ti": ti, "task": task}, notifier)
    return job


def test_the_dag_processor_says_by_its_callback_whether_airflow_tries_again() -> None:
    def notify(context: Any) -> None: ...

    def other(context: Any) -> None: ...

    first, last = DagProcessorTask(try_number=1), DagProcessorTask(try_number=2)
    by_retry = found(first, notify, on_retry_callback=notify, on_failure_callback=other)
    by_failure = found(first, notify, on_retry_callback=other, on_failure_callback=notify)
    by_both = [found(ti, notify, on_retry_callback=notify, on_failure_callback=[other, notify]) for ti in (first, last)]
    cleared = found(
        DagProcessorTask(try_number=2, max_tries=3), notify, on_retry_callback=notify, on_failure_callback=notify
    )
    assert all(job.has_failed and job.handle is None for job in (by_retry, by_failure, *by_both))
    will_retry = [job.task.will_retry for job in (by_retry, by_failure, *by_both, cleared) if job.task]
    assert will_retry == [True, False, True, False, True]


def test_a_deadline_gives_nothing_to_find_a_job_by(caplog: pytest.LogCaptureFixture) -> None:
    GpuJobNotifier(webhook_url="http://127.0.0.1:1")({"dag_run": {"dag_id": "lab"}, "deadline": {}})
    assert "Airflow gives this callback neither a task nor a DAG" in caplog.text


def test_a_task_without_a_job_has_no_link_to_one() -> None:
    job = found(DagProcessorTask(try_number=1), None)
    assert job.task is not None
    assert (job.task.job_url, job.task.name) == ("", "lab.train[3]")
