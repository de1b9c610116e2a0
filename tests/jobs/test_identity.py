"""Who asks for a job, and when that is the same job."""

from __future__ import annotations

import getpass
import json
import socket
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs import identity
from airflow_provider_gpu_cluster.jobs.identity import (
    current_caller,
    current_identity,
    forerunners_of,
    identity_of,
    reader_of,
)
from tests.harness.task_context import TaskInstance, task_context


def test_retry_is_the_same_job_and_another_request() -> None:
    first, second = (identity_of(task_context(TaskInstance(try_number=number, max_tries=2))) for number in (1, 2))
    assert (first.job_id, first.generation) == (second.job_id, second.generation)
    assert first.request_key != second.request_key


def test_clear_is_another_job() -> None:
    # Airflow sets max_tries to try_number + retries when a task is cleared.
    before, after = (
        identity_of(task_context(TaskInstance(try_number=number, max_tries=tries)))
        for number, tries in ((1, 2), (2, 3))
    )
    assert before.job_id != after.job_id
    assert before.generation != after.generation


def test_jobs_of_before_a_clear_are_known_again() -> None:
    def job_id(max_tries: int) -> str:
        return identity_of(task_context(TaskInstance(max_tries=max_tries))).job_id

    def forerunners(max_tries: int) -> list[str]:
        return forerunners_of(task_context(TaskInstance(max_tries=max_tries)), retries=2)

    assert forerunners(2) == []
    assert forerunners(3) == [job_id(2)]
    # Cleared in its second try, and in the fourth.
    assert {job_id(2), job_id(4)} < set(forerunners(6))
    assert job_id(6) not in forerunners(6)
    assert len(forerunners(1000)) == 20
    assert forerunners(1000)[-1] == job_id(999)


def test_mapped_tasks_are_jobs_of_their_own() -> None:
    ids = {identity_of(task_context(TaskInstance(map_index=index))).job_id for index in (-1, 0, 1)}
    assert len(ids) == 3


def test_same_try_asked_for_twice_is_the_same_request() -> None:
    context = task_context()
    assert identity_of(context).request_key == identity_of(context).request_key


def test_record_is_plain_json() -> None:
    record = identity_of(task_context()).record
    assert json.loads(json.dumps(record)) == record
    assert record["triggered_by"] == "ada"


def test_named_job_needs_no_task() -> None:
    first, second = current_identity(job_id="mine"), current_identity(job_id="mine")
    assert first.job_id == second.job_id == "mine"
    assert first.generation == second.generation
    assert first.request_key != second.request_key
    with pytest.raises(InvalidJobError):
        current_identity()


def test_who_asks_is_the_running_task_or_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_caller() == {"airflow_host": socket.gethostname(), "person": getpass.getuser()}
    context = task_context()
    monkeypatch.setattr(identity, "get_current_context", lambda: context)
    caller = current_caller()
    record = identity_of(context).record
    for name in ("dag_id", "task_id", "run_id", "try_number", "triggered_by", "owner", "airflow_host"):
        assert caller.get(name) == record.get(name)
    assert "person" not in caller
    monkeypatch.setattr(identity, "get_current_context", dict)
    # Whatever a context lacks.
    assert current_caller() == {"airflow_host": socket.gethostname()}


def test_reader_outlives_a_retry_and_not_a_clear() -> None:
    def reader(**ti: Any) -> str:
        return reader_of(task_context(TaskInstance(**ti)))

    assert reader(try_number=1, max_tries=2) == reader(try_number=2, max_tries=2)
    assert reader(try_number=1, max_tries=2) != reader(try_number=2, max_tries=3)
    assert reader(map_index=0) != reader(map_index=1)
