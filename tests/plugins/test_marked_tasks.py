"""What the database knows of tasks that a request has ended, or is about to delete."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.io.xcom import backend
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from sqlalchemy import insert, select

from airflow_provider_gpu_cluster.plugins.marked_tasks import (
    PartOfDag,
    abandoned,
    fail_what_was_skipped,
    to_be_deleted,
)
from airflow_provider_gpu_cluster.tasks import job_notes
from airflow_provider_gpu_cluster.tasks.job_notes import TEARDOWN_XCOM_KEY
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY
from tests.harness.airflow_database import make_database

NOTE = {"gpu_cluster_conn_id": "lab", "job_id": "job-1"}


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    make_database()


class Run:
    """A run in the database."""

    def __init__(self, state: str = "running") -> None:
        self.dag_id = "marked"
        self.run_id = f"manual__{uuid.uuid4()}"
        self.began = datetime.now(timezone.utc) - timedelta(seconds=1)
        with create_session() as session:
            run = DagRun(dag_id=self.dag_id, run_id=self.run_id, run_type=DagRunType.MANUAL, state=DagRunState(state))
            session.add(run)
            session.flush()
            self._id = run.id

    @property
    def part(self) -> PartOfDag:
        return PartOfDag(self.dag_id, self.run_id)

    def task(
        self,
        task_id: str,
        state: str | None,
        xcoms: dict[str, Any] | None = None,
        *,
        operator: str = "SubmitGpuJobOperator",
    ) -> None:
        place = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": task_id, "map_index": -1}
        more = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": "", "operator": operator}
        with create_session() as session:
            session.execute(
                insert(TaskInstance).values(**place, **more, state=state, updated_at=datetime.now(timezone.utc))
            )
            for key, value in (xcoms or {}).items():
                session.add(XComModel(dag_run_id=self._id, key=key, value=value, **place))

    def states(self) -> dict[str, str]:
        query = select(TaskInstance.task_id, TaskInstance.state).filter_by(dag_id=self.dag_id, run_id=self.run_id)
        with create_session() as session:
            return {row.task_id: row.state for row in session.execute(query)}


@pytest.fixture
def stored_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Configure an XCom backend that stores values in files; return what it leaves in the database for the note."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{tmp_path}")
    monkeypatch.setattr(job_notes, "XCom", backend.XComObjectStorageBackend)
    backend._get_base_path.cache_clear()
    (tmp_path / "note.json").write_text(json.dumps(NOTE))
    yield f"file://{tmp_path}/note.json"
    backend._get_base_path.cache_clear()


def test_one_note_that_cannot_be_read_spoils_no_other(stored_elsewhere: str) -> None:
    run = Run()
    bad = ["no note", "file:///nowhere/at/all", "null", "[1", [], 7, {"job_id": 3, "gpu_cluster_conn_id": "lab"}]
    for number, value in enumerate(bad):
        run.task(f"bad_{number}", "failed", {KILL_XCOM_KEY: value})
    run.task("plain", "failed", {KILL_XCOM_KEY: NOTE})
    run.task("text", "skipped", {KILL_XCOM_KEY: json.dumps({**NOTE, "job_id": "job-2"})})
    assert sorted(abandoned(run.began)) == [("lab", "job-1"), ("lab", "job-2")]
    run.task("elsewhere", "failed", {KILL_XCOM_KEY: stored_elsewhere})
    assert len(abandoned(run.began)) == 2
    run.task("running", "running", {KILL_XCOM_KEY: {**NOTE, "job_id": "job-3"}})
    assert len(abandoned(run.began)) == 2
    Path(stored_elsewhere.removeprefix("file://")).write_text(json.dumps({**NOTE, "job_id": "job-4"}))
    assert sorted(abandoned(run.began))[-1] == ("lab", "job-4")


def test_what_would_be_forgotten_with_a_run() -> None:
    run = Run()
    run.task("waits", "deferred", {KILL_XCOM_KEY: NOTE})
    run.task("ended", "failed", {KILL_XCOM_KEY: {**NOTE, "job_id": "job-2"}})
    run.task("submit", "success", {TEARDOWN_XCOM_KEY: {**NOTE, "job_id": "job-3"}})
    assert to_be_deleted(run.part) == [("lab", "job-1")]
    run.task("cancel", None, operator="CancelGpuJobOperator")
    assert sorted(to_be_deleted(run.part)) == [("lab", "job-1"), ("lab", "job-3")]
    assert to_be_deleted(PartOfDag(run.dag_id, run.run_id, "waits")) == [("lab", "job-1")]
    assert to_be_deleted(PartOfDag(run.dag_id, run.run_id, "submit")) == []
    assert {("lab", "job-1"), ("lab", "job-3")} <= set(to_be_deleted(PartOfDag(run.dag_id)))
    assert to_be_deleted(PartOfDag("another")) == []


@pytest.mark.parametrize(
    ("run_state", "cancel_state", "expected"),
    [
        ("running", None, "upstream_failed"),
        ("running", "scheduled", "upstream_failed"),
        ("running", "running", "upstream_failed"),
        ("running", "success", "skipped"),
        ("failed", None, "skipped"),
    ],
)
def test_what_a_user_skips_by_marking_a_run_failed_is_no_success(
    run_state: str, cancel_state: str | None, expected: str
) -> None:
    run = Run(run_state)
    run.task("wait", "failed", operator="GpuJobSensor")
    run.task("collect", "skipped", operator="CollectGpuJobOperator")
    run.task("cancel", cancel_state, operator="CancelGpuJobOperator")
    fail_what_was_skipped(run.part, run.began)
    assert run.states() == {"wait": "failed", "collect": expected, "cancel": cancel_state}


def test_what_was_skipped_before_stays_skipped() -> None:
    run = Run()
    run.task("branch", "skipped", operator="CollectGpuJobOperator")
    run.task("cancel", None, operator="CancelGpuJobOperator")
    assert fail_what_was_skipped(run.part, datetime.now(timezone.utc) + timedelta(seconds=1)) == 0
    assert run.states()["branch"] == "skipped"
