from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.exceptions import (
    JOB_ERRORS,
    GpuClusterProtocolError,
    GpuJobError,
    GpuJobLost,
    GpuJobOutOfMemory,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import ArrayPart, JobHandle, checked_job_id, part_id
from airflow_provider_gpu_cluster.jobs.identity import make_job_id
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.tasks.handles import handle_of

RUN_DATE = datetime(2026, 3, 1, 12, 30, 5, tzinfo=timezone.utc)
VALID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")


def job_id(**changes: Any) -> str:
    parts: dict[str, Any] = {
        "dag_id": "digits",
        "run_id": "manual__1",
        "task_id": "train",
        "map_index": -1,
        "generation": "0",
        "run_date": RUN_DATE,
    }
    return make_job_id(**{**parts, **changes})


def test_job_id_is_readable_and_always_the_same() -> None:
    assert job_id() == "digits-train-20260301T123005-06ffff47"


@pytest.mark.parametrize(
    "change",
    [{"dag_id": "d2"}, {"run_id": "r2"}, {"task_id": "t2"}, {"map_index": 0}, {"generation": "1"}],
    ids=lambda change: next(iter(change)),
)
def test_job_id_changes_with_each_part_of_the_identity(change: dict[str, Any]) -> None:
    assert job_id(**change) != job_id()


def test_parts_cannot_be_shifted_from_one_to_the_next() -> None:
    assert job_id(dag_id="a-b", task_id="c")[-8:] != job_id(dag_id="a", task_id="b-c")[-8:]


def test_the_same_moment_in_another_zone_is_the_same_job() -> None:
    assert job_id(run_date=RUN_DATE.astimezone(timezone(timedelta(hours=5)))) == job_id()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "a b",
        "it's",
        'say "x"',
        "$(touch x)",
        "x\ny",
        "ünïcødé",
        "日本",
        "",
        ".",
        "-rf",
        "~",
        "\0",
        "\udcff",
    ],
)
def test_hostile_names(name: str) -> None:
    for change in ({"dag_id": name}, {"task_id": name}, {"dag_id": name, "task_id": name}):
        found = job_id(**change)
        assert VALID.fullmatch(found)
        assert ".." not in found


def test_long_names_keep_the_stamp_and_the_hash() -> None:
    found = job_id(dag_id="d" * 250, task_id="t" * 250)
    assert len(found) == 100
    assert VALID.fullmatch(found)
    assert found != job_id(dag_id="d" * 250, task_id="t" * 249)


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.text(), st.text(), st.integers(-1, 5000))
def test_any_names_give_a_safe_job_id(dag_id: str, task_id: str, run_id: str, map_index: int) -> None:
    found = job_id(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index)
    assert VALID.fullmatch(found)
    assert len(found) <= 100


def test_states() -> None:
    assert [state for state in JobState if state.final] == ["SUCCEEDED", "FAILED", "CANCELLED", "LOST"]
    assert f"{JobState.UNKNOWN}" == "UNKNOWN"


def test_spec_is_plain_json() -> None:
    spec = JobSpec(entry_script="train.py", script_args=("a", "b"), memory_bytes=1 << 30)
    assert json.loads(json.dumps(spec.to_json()))["script_args"] == ["a", "b"]


HANDLE = JobHandle("j-1", "gpu_cluster_default", "/home/me/ml-jobs/j-1", "host", "2026-03-01T12:30:05+00:00", 2)


def test_handle_goes_through_xcom() -> None:
    value = json.loads(json.dumps(HANDLE.to_json()))
    assert sorted(value) == ["engine", "gpu_cluster_conn_id", "gpus", "job_dir", "job_id", "submitted_at"]
    assert JobHandle.from_json(value) == HANDLE
    assert JobHandle.from_json({**value, "of_a_later_version": 1}) == HANDLE


def test_handle_of_an_array_on_several_clusters() -> None:
    parts = (
        ArrayPart("a", "gpu01", "/ml-jobs/a", "host", first=0, count=3),
        ArrayPart("a.p2", "slurm", "/scratch/jobs/a.p2", "slurm", first=3, count=2),
    )
    array = JobHandle("a", "gpu01", "/ml-jobs/a", "host", "2026-03-01T12:30:05+00:00", 2, array_size=5, parts=parts)
    value = json.loads(json.dumps(array.to_json()))
    assert JobHandle.from_json(value) == array
    assert [(one.gpu_cluster_conn_id, one.job_dir) for one in array.elements[2:4]] == [
        ("gpu01", "/ml-jobs/a_2"),
        ("slurm", "/scratch/jobs/a.p2_0"),
    ]
    assert [(one.job_id, one.engine, one.array_size) for one in array.arrays] == [
        ("a", "host", 3),
        ("a.p2", "slurm", 2),
    ]
    assert [one.parts for one in array.arrays] == [(), ()]
    wrong: list[Any] = [{}, None, {**value["parts"][1], "first": 4}, {**value["parts"][1], "count": "2"}]
    for part in [*wrong, {**value["parts"][1], "job_id": "../x"}]:
        with pytest.raises(ValueError, match="its parts"):
            JobHandle.from_json({**value, "parts": [value["parts"][0], part]})
    assert part_id("a", 0) == "a"
    assert part_id("x" * 100, 1) == "x" * 97 + ".p2"


@pytest.mark.parametrize("value", [None, "j-1", [], {}, {"job_id": "j-1"}])
def test_what_is_no_handle(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not a job handle: .* job_id, gpu_cluster_conn_id, job_dir"):
        JobHandle.from_json(value)


def test_status_from_a_reply() -> None:
    reply = {
        "job_id": "j-1",
        "state": "RUNNING",
        "attempt": 2,
        "gpus": [0, 3],
        "progress": {"step": 1},
        "of_a_later_version": True,
    }
    status = JobStatus.from_json(json.loads(json.dumps(reply)))
    assert status == JobStatus("j-1", JobState.RUNNING, attempt=2, gpus=(0, 3), progress={"step": 1})
    assert not status.final
    of_an_older_version: Any = {"job_id": "j-1", "state": "LOST", "gpus": None}
    assert JobStatus.from_json(of_an_older_version).final


def test_status_with_a_state_that_does_not_exist() -> None:
    with pytest.raises(GpuClusterProtocolError, match="HAPPY"):
        JobStatus.from_json({"job_id": "j-1", "state": "HAPPY"})


def test_run_seconds() -> None:
    times = {"started_at": "2026-03-01T12:00:00+00:00", "ended_at": "2026-03-01T12:01:30.5+00:00"}
    reply: Any = {"job_id": "j-1", "state": "FAILED", **times}
    status = JobStatus.from_json(reply)
    assert status.run_seconds == 90.5
    assert JobStatus("j-1", JobState.RUNNING, started_at=times["started_at"]).run_seconds is None


def test_error_says_what_where_and_why() -> None:
    status = JobStatus(
        "j-1",
        JobState.FAILED,
        reason=protocol.OUT_OF_MEMORY,
        message="it used 33 GiB of 32 GiB",
        log_tail="MemoryError\n",
    )
    error = status.error("me@gpu1:22")
    assert type(error) is GpuJobOutOfMemory
    assert str(error).splitlines() == [
        "job j-1 on me@gpu1:22 FAILED (out_of_memory): it used 33 GiB of 32 GiB",
        "Its last lines were:",
        "MemoryError",
    ]
    assert (error.job_id, error.state, error.reason, error.exit_code) == (
        "j-1",
        "FAILED",
        "out_of_memory",
        None,
    )


def test_each_reason_has_an_error_class_of_its_own() -> None:
    assert set(JOB_ERRORS) == set(protocol.REASONS)
    assert len(set(JOB_ERRORS.values())) == len(protocol.REASONS)
    assert type(JobStatus("j", JobState.LOST, reason="lost").error("c")) is GpuJobLost
    assert type(JobStatus("j", JobState.FAILED, reason="of a later version").error("c")) is GpuJobError


NO_JOB_IDS = (
    *("", ".", "..", ".hidden", "../evil", "a/b", "/a", "-", "-x", "--help", "x" * 101, "x" * 10**6),
    *("a b", " a", "a\nb", "a\n", "a\x00b", "\x00", "ä", "a\u0301", "\u0661", "a;b", "$a", "a\\b", "*"),
    *(None, 7, ["a"], b"a"),
)


@pytest.mark.parametrize("job_id", NO_JOB_IDS, ids=lambda job_id: repr(job_id)[:20])
def test_what_could_name_something_else_is_no_job_id(job_id: Any, tmp_path: Path) -> None:
    """Both sides say it in the same words."""
    with pytest.raises(InvalidJobError) as here:
        checked_job_id(job_id)
    with pytest.raises(Refused) as there:
        Root(str(tmp_path)).job(job_id)
    assert str(here.value) == there.value.message
    assert "is no job id: use up to 100 of A-Z a-z 0-9 . _ - and begin with" in str(here.value)
    assert len(str(here.value)) < 350
    with pytest.raises(InvalidJobError, match="is no job id"):
        handle_of({**HANDLE.to_json(), "job_id": job_id})
    if isinstance(job_id, str):
        hook = GpuClusterHook()
        for call in (hook.status, hook.logs, hook.cancel, lambda one: hook.collect(one, tmp_path)):
            with pytest.raises(InvalidJobError, match="is no job id"):
                call(job_id)
        with pytest.raises(InvalidJobError, match="is no job id"):
            hook.submit(command="true", job_id=job_id)
        with pytest.raises(InvalidJobError, match="is no job id"):
            hook.stage(job_id=job_id)


@pytest.mark.parametrize("job_id", ["a", "_", "A.b_c-d", "0", "x" * 100, "dag-task-20260301T123005-0a1b2c3d_17"])
def test_job_ids(job_id: str, tmp_path: Path) -> None:
    assert checked_job_id(job_id) == Root(str(tmp_path)).job(job_id).job_id == job_id


def test_history_is_what_a_result_says_of_attempts() -> None:
    past: Any = {"attempt": 1, "reason": "preempted", "host": "node7", "gpu_seconds": float("nan"), "checkpoint": "x"}
    reply: Any = {"job_id": "j-1", "state": "SUCCEEDED", "attempt": 2, "host": "node8", "exit_code": 0}
    assert JobStatus.from_json(reply).history() == {}
    reply.update(attempts=[past], recovered={"preempted": 1, "odd": "x"})
    status = JobStatus.from_json(reply)
    assert json.loads(json.dumps(JobStatus.from_json(status.to_json()).history(), allow_nan=False)) == {
        "recovered": {"preempted": 1},
        "attempts": [
            {**past, "gpu_seconds": "NaN"},
            {
                "attempt": 2,
                "reason": None,
                "kind": None,
                "message": "",
                "started_at": None,
                "ended_at": None,
                "host": "node8",
                "exit_code": 0,
                "gpu_seconds": None,
                "checkpoint": None,
            },
        ],
    }
    assert JobHandle.from_json({**HANDLE.to_json(), **status.history()}) == HANDLE
    failed = JobStatus("j-1", JobState.FAILED, reason="preempted", recovered={"preempted": 20}).error("c")
    assert failed.recovered == {"preempted": 20}
