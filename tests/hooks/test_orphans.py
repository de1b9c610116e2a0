"""Which jobs nothing in Airflow waits for any more. tests/test_dags.py asks a real Airflow and a real cluster."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.hooks.orphans import orphans_among
from airflow_provider_gpu_cluster.jobs.orphan import OrphanedJob

URL = "https://airflow.example.com"


class Airflow:
    """Stands for what Airflow tells a task about runs and task instances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = {"r": "running", "over": "success"}
        self.states: dict[tuple[str, str], str | None] = {}
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", object(), raising=False)
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", self._get_task_states)
        monkeypatch.setattr(RuntimeTaskInstance, "get_dr_count", self._get_dr_count)
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", URL)

    def _get_task_states(self, *, dag_id: str, task_ids: list[str], run_ids: list[str], map_index: int) -> Any:
        key = task_ids[0] if map_index < 0 else f"{task_ids[0]}_{map_index}"
        return {run_id: {key: self.states[run_id, key]} for run_id in run_ids if (run_id, key) in self.states}

    def _get_dr_count(self, *, dag_id: str, run_ids: list[str], states: list[str] | None) -> int:
        return sum(run in run_ids and (states is None or state in states) for run, state in self.runs.items())


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    return Airflow(monkeypatch)


def job(job_id: str = "j", run_id: str = "r", *, by: Any = None, **more: Any) -> Any:
    who = {"dag_id": "d", "run_id": run_id, "task_id": "t", "map_index": -1, "try_number": 2, "airflow_url": URL}
    facts = {"submitted_at": "2026-01-01T00:00:00+00:00", "unasked_s": 100.0, "generation": "1"}
    return {"job_id": job_id, "state": "RUNNING", "attempt": 1, "gpus": 2, "by": {**who, **(by or {})}, **facts, **more}


def orphans(*jobs: Any, older_than: timedelta | None = None, of_unknown_runs: bool = False) -> list[OrphanedJob]:
    return orphans_among(jobs, conn_id="c", older_than=older_than, of_unknown_runs=of_unknown_runs)


@pytest.mark.parametrize(
    ("state", "run_id", "why"),
    [
        *((state, "r", f"its task is {state}") for state in ("failed", "skipped", "upstream_failed", "removed")),
        *((state, "r", None) for state in (None, "queued", "running", "deferred", "up_for_retry", "up_for_reschedule")),
        # A sensor may wait for what a task has launched that has succeeded.
        ("success", "r", None),
        ("success", "over", "its task and its run have ended"),
        ("failed", "over", "its task is failed"),
        ("no task", "r", "its task is no longer in its run"),
        ("no task", "gone", "Airflow knows no such run"),
    ],
)
def test_what_has_become_of_the_task_decides(airflow: Airflow, state: str | None, run_id: str, why: str | None) -> None:
    if state != "no task":
        airflow.states[run_id, "t"] = state
    assert [orphan.why for orphan in orphans(job(run_id=run_id))] == ([] if why is None else [why])


def test_what_is_told_of_an_orphan(airflow: Airflow) -> None:
    airflow.states["r", "t_3"] = "failed"
    (orphan,) = orphans(job(by={"map_index": 3}, started_at="2026-01-02T00:00:00+00:00"))
    assert orphan == OrphanedJob(
        "j", "c", orphan.state, 2, "its task is failed", "d", "r", "t", 3, 2,
        datetime(2026, 1, 2, tzinfo=timezone.utc), timedelta(seconds=100),
    )  # fmt: skip
    said = "j: RUNNING since 2026-01-02 00:00:00 UTC, 2 GPUs, of d.t[3], run r: its task is failed"
    assert str(orphan) == said


def test_a_task_that_was_cleared_has_another_job(airflow: Airflow) -> None:
    airflow.states["r", "t"] = "running"
    found = orphans(job("old", newer="new"), job("new", generation="4"))
    assert [(orphan.job_id, orphan.why) for orphan in found] == [
        ("old", "its task was run anew, and has launched new since")
    ]


@pytest.mark.parametrize(
    ("by", "is_ours"),
    [
        ({}, True),
        ({"airflow_url": "https://other.example.com"}, False),
        # A record of an earlier version, or of an Airflow that has no address.
        ({"airflow_url": None, "airflow_host": socket.gethostname()}, False),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_jobs_of_another_airflow_are_not_called_orphans(
    airflow: Airflow, by: dict[str, Any], is_ours: bool, is_known: bool
) -> None:
    if is_known:
        airflow.states["r", "t"] = "failed"
    one = job(run_id="r" if is_known else "gone", by=by)
    # Who has no address, and is known here, is this Airflow.
    is_told = is_ours or (is_known and by["airflow_url"] is None)
    assert len(orphans(one)) == is_told
    assert len(orphans(one, of_unknown_runs=True)) == 1


def test_an_airflow_without_an_address_knows_jobs_of_its_own_machine(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost:8080")
    ours = {"airflow_url": None, "airflow_host": socket.gethostname()}
    assert len(orphans(job("a", "gone", by=ours), job("b", "gone", by={**ours, "airflow_host": "elsewhere"}))) == 1


def test_jobs_of_persons_are_none_of_airflows(airflow: Airflow) -> None:
    person = {**job(), "by": {"person": "ada", "folder": "/home/ada"}}
    assert orphans(person, of_unknown_runs=True) == []


def test_what_was_asked_for_lately_is_left_out(airflow: Airflow) -> None:
    airflow.states["r", "t"] = "failed"
    jobs = [job("a", unasked_s=50.0), job("b", unasked_s=5000.0)]
    assert [orphan.job_id for orphan in orphans(*jobs, older_than=timedelta(minutes=5))] == ["b"]


def test_an_array_is_one_orphan(airflow: Airflow) -> None:
    airflow.states["r", "t"] = "failed"
    (orphan,) = orphans(job("a_0", array="a", state="QUEUED"), job("a_1", array="a"))
    assert (orphan.job_id, orphan.gpus, orphan.state) == ("a", 4, "RUNNING")


def test_outside_of_a_task_it_says_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)
    with pytest.raises(GpuClusterError, match="only a task can"):
        orphans(job())
