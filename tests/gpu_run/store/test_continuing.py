"""What a job goes on with on another cluster: the number of its attempt, and no fresh budget."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs.sound_status import sound
from airflow_provider_gpu_cluster.gpu_run.store import records
from airflow_provider_gpu_cluster.gpu_run.store.continuing import (
    continuation_of,
    from_cluster,
    go_on,
    next_number,
    note_carried,
)
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt, JobDirectory, Root

RECOVERY: dict[str, Any] = {
    "first": 1,
    "used": {"preempted": 1},
    "reason": "preempted",
    "why": "attempt 1 was preempted",
    "streak": 1,
    "not_before": 0.0,
    "checkpoint": None,
    "quick_ends": [],
    "past": [{"attempt": 1, "line": "gpu-run: attempt 1 was preempted; attempt 2 begins without a checkpoint"}],
    "exclude_nodes": ["node7"],
}
KEPT = {name: value for name, value in RECOVERY.items() if name != "exclude_nodes"}
CANCELLED = (protocol.CANCELLED, protocol.REASON_CANCELLED, "moved to another cluster (gpu02) before it started")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(str(tmp_path / "root"))


@pytest.fixture
def job(root: Root) -> JobDirectory:
    root.job("job").create()
    return root.job("job")


def add(job: JobDirectory, number: int, **request: Any) -> Attempt:
    base: Any = {"request_key": "try-1", "generation": "0", "by": {}, "spec": {"gpus": 1}, "settings": {}}
    base.update(request)
    attempt = job.add_attempt(number, base, {})
    assert attempt is not None
    return attempt


def test_a_job_that_never_ran_begins_with_its_first_attempt(job: JobDirectory) -> None:
    assert continuation_of(job) == {"attempt": 1}
    add(job, 1).finish(*CANCELLED, placement="withdrawn")
    assert continuation_of(job) == {"attempt": 1}
    # Here there is one of that number.
    assert next_number(job) == 2


def test_an_attempt_that_was_taken_back_goes_on_as_itself(job: JobDirectory) -> None:
    add(job, 2, recovery={**RECOVERY, "not_before": time.time() + 100}, spec={"gpus": 1, "memory_bytes": 1 << 30})
    job.attempt(2).finish(*CANCELLED, placement="withdrawn")
    found = continuation_of(job)
    assert (found["attempt"], found["memory_bytes"]) == (2, 1 << 30)
    assert {**found["recovery"], "not_before": 0.0} == KEPT
    assert 90 < found["wait_s"] <= 100
    # It may also come back.
    request: Any = {"generation": "0", "spec": {"gpus": 1}}
    go_on(job, request, 3)
    assert (request["recovery"]["first"], request["recovery"]["used"]) == (3, {"preempted": 1})
    assert request["spec"] == {"gpus": 1, "memory_bytes": 1 << 30}
    other: Any = {"generation": "1", "spec": {"gpus": 1}}
    go_on(job, other, 3)
    assert "recovery" not in other


def test_earlier_attempts_name_the_cluster_where_they_were(job: JobDirectory) -> None:
    second: Any = {"attempt": 2}
    earlier: Any = {"attempt": 3, "recovery": {**KEPT, "past": [{"attempt": 1, "conn_id": "gpu00"}, second]}}
    note_carried(job, continuation=from_cluster(earlier, "gpu01"))
    past: Any = [{"attempt": 1, "conn_id": "gpu00"}, {"attempt": 2, "conn_id": "gpu01"}]
    request: Any = {"generation": "0", "spec": {"gpus": 1}}
    go_on(job, request, 3)
    assert request["recovery"]["past"] == past
    assert sound({"job_id": "job", "state": protocol.QUEUED, "attempts": past}).get("attempts") == past
    assert second == {"attempt": 2}
    for nothing_to_tell in ({"attempt": 2}, {"attempt": 2, "recovery": "spoilt by the job"}):
        told: Any = nothing_to_tell
        assert from_cluster(told, "gpu01") == told


@pytest.mark.parametrize(
    ("end", "facts"),
    [
        ((protocol.FAILED, protocol.USER_ERROR, "exit code 3"), {"started_at": "2026-01-01T00:00:00.000+00:00"}),
        (CANCELLED, {}),  # by a user
    ],
)
def test_after_an_end_of_its_own_a_try_has_a_whole_budget(job: JobDirectory, end: Any, facts: Any) -> None:
    add(job, 2, recovery=RECOVERY).finish(*end, **facts)
    assert continuation_of(job) == {"attempt": 3}


def test_an_end_that_is_followed_is_followed_elsewhere(job: JobDirectory) -> None:
    add(job, 1, spec={"gpus": 1, "recover": {"preempted": 2}})
    job.attempt(1).finish(protocol.FAILED, protocol.PREEMPTED, "", started_at=records.now())
    found = continuation_of(job)
    assert (found["attempt"], found["recovery"]["used"]) == (2, {"preempted": 1})


def test_what_was_brought_along_counts_until_the_next_attempt(job: JobDirectory) -> None:
    note_carried(job, continuation={"attempt": 5, "recovery": KEPT, "wait_s": 0.0, "memory_bytes": 7}, outputs="digest")
    assert next_number(job) == 5
    request: Any = {"generation": "0", "spec": {"gpus": 1}}
    go_on(job, request, 5)
    assert (request["recovery"]["first"], request["spec"]["memory_bytes"]) == (5, 7)
    add(job, 5, recovery=request["recovery"]).finish(protocol.FAILED, protocol.USER_ERROR, "", started_at="x")
    assert continuation_of(job) == {"attempt": 6}


@pytest.mark.parametrize(
    "spoilt", [None, 3, {"attempt": 0}, {"attempt": "x"}, {"attempt": True}, {"attempt": 2, "recovery": {}}]
)
def test_what_a_job_has_spoilt_is_not_believed(job: JobDirectory, spoilt: Any) -> None:
    note_carried(job, continuation=spoilt)
    found = continuation_of(job)
    assert found == {"attempt": 2} if isinstance(spoilt, dict) and spoilt["attempt"] == 2 else {"attempt": 1}
