"""Filling the table from a real database of Airflow, and from what real programs answer."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import delete, event, insert, select, update
from sqlalchemy.engine import Engine

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.job_table import filling, places, queries
from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from airflow_provider_gpu_cluster.job_table.facts import GONE
from airflow_provider_gpu_cluster.job_table.filling import Filling, request_to, write_answer
from airflow_provider_gpu_cluster.job_table.queries import Selection
from airflow_provider_gpu_cluster.job_table.tables import attempts, jobs, sources
from airflow_provider_gpu_cluster.job_table.viewers import Viewers
from airflow_provider_gpu_cluster.plugins import job_filling
from airflow_provider_gpu_cluster.plugins.job_filling import FilledTable, JobFilling
from tests.harness.airflow_database import make_database

NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    make_database()


@pytest.fixture(autouse=True)
def empty() -> None:
    with create_session() as session:
        for table in (attempts, jobs, sources):
            session.execute(delete(table))
        for model in (XComModel, TaskInstance, DagRun):
            session.execute(delete(model))


def handle(job_id: str = "mine-train-1", **more: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "gpu_cluster_conn_id": "lab",
        "job_dir": f"/jobs/{job_id}",
        "engine": "host",
        "submitted_at": NOON.isoformat(),
        "gpus": 2,
        **more,
    }


def note(job_id: str = "mine-train-1", **more: Any) -> dict[str, Any]:
    return {**handle(job_id), "user": "ada", "state": "QUEUED", "attempt": 1, "request": {"gpus": 2}, **more}


def launched(
    task_id: str = "train", *, run_id: str | None = None, run_state: Any = "running", **xcoms: Any
) -> dict[str, Any]:
    """Put a task instance with these XComs into Airflow's database; return its key."""
    task: dict[str, Any] = {"dag_id": "mine", "run_id": run_id or str(uuid.uuid4()), "task_id": task_id}
    with create_session() as session:
        key = session.scalar(select(DagRun.id).where(DagRun.run_id == task["run_id"]))
        if key is None:
            run = DagRun(dag_id="mine", run_id=task["run_id"], run_type=DagRunType.MANUAL, state=run_state)
            session.add(run)
            session.flush()
            key = run.id
        values = {**task, "map_index": -1, "id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": ""}
        session.execute(insert(TaskInstance).values(values))
        session.flush()
        for name, value in xcoms.items():
            session.add(XComModel(dag_run_id=key, key=name, map_index=-1, value=json.dumps(value), **task))
    return task


def rows() -> dict[str, dict[str, Any]]:
    with create_session() as session:
        found = queries.page_of(session, Selection({"mine"}), "submitted_at", 100, 0)
    return {row["job_id"]: row for row in found}


@contextmanager
def statements() -> Iterator[list[str]]:
    found: list[str] = []

    def note_it(_: Any, __: Any, statement: str, *___: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note_it)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note_it)


def turn(reader: Filling | None = None) -> Filling:
    reader = reader or Filling("here")
    assert reader.is_mine()
    reader.read_airflow()
    return reader


def line(job_id: str = "mine-train-1", attempt: int = 1, state: str = "SUCCEEDED", **more: Any) -> dict[str, Any]:
    return {
        "kind": "end",
        "at": (NOON + timedelta(hours=attempt)).isoformat(),
        "job_id": job_id,
        "user": "ada",
        "dag_id": "mine",
        "run_id": "r",
        "task_id": "train",
        "map_index": -1,
        "attempt": attempt,
        "engine": "host",
        "state": state,
        "reason": None,
        "gpus": 2,
        "gpu_seconds": 100.0,
        "queued_s": 10.0,
        "leased_s": 50.0,
        **more,
    }


def answer(*lines: Any, is_all: bool = True, offset: int = 1, jobs: Any = ()) -> Any:
    return {
        "lines": list(lines),
        "place": {"file": "2026-11.jsonl", "offset": offset},
        "is_all": is_all,
        "jobs": list(jobs),
    }


def test_a_launch_gets_its_row_and_keeps_it() -> None:
    reader = turn()
    task = launched(gpu_job_launch=note(), return_value=handle(), gpu_job_link="/x")
    turn(reader)
    (row,) = rows().values()
    assert (row["state"], row["user"], row["gpus"], row["task_id"]) == ("QUEUED", "ada", 2, "train")
    # Whatever is deleted in Airflow, the row stays.
    with create_session() as session:
        session.execute(delete(XComModel))
        session.execute(delete(TaskInstance).where(TaskInstance.run_id == task["run_id"]))
        session.execute(delete(DagRun))
    turn(reader)
    assert list(rows()) == ["mine-train-1"]


def test_what_was_there_before_is_imported_once() -> None:
    launched("train", run_id="old", run_state="success", return_value=handle("mine-train-1"), gpu_job_link="/x")
    launched("wait", run_id="old", return_value=handle("mine-train-1"), gpu_job_link="/y")
    launched("other", run_state="failed", return_value=handle("mine-other-2"))
    launched("quiet", run_state="success", gpu_job_cancel_on_kill=handle("mine-quiet-3"), gpu_job_link="/z")
    launched("staged", run_state="success", return_value={**handle("mine-s-4"), "submitted_at": None}, gpu_job_link="/")
    launched("odd", run_state="success", return_value=["no", "handle"], gpu_job="{", gpu_job_link="/")
    turn()
    found = {job_id: (row["task_id"], row["state"]) for job_id, row in rows().items()}
    # A task that returns a handle without a link has got it from elsewhere.
    assert found == {"mine-train-1": ("train", "UNKNOWN"), "mine-quiet-3": ("quiet", "UNKNOWN")}
    with create_session() as session:
        session.execute(delete(jobs))
    turn()
    assert rows() == {}


def test_a_run_that_ended_between_two_turns_is_not_missed() -> None:
    reader = turn()
    task = launched("before")
    turn(reader)
    with create_session() as session:
        run = session.scalars(select(DagRun)).one()
        session.add(
            XComModel(dag_run_id=run.id, key="gpu_job_launch", map_index=-1, value=json.dumps(note("mine-b-1")), **task)
        )
        run.state = "success"
    launched("new", run_state="success", gpu_job_launch=note("mine-n-2"))
    turn(reader)
    assert set(rows()) == {"mine-b-1", "mine-n-2"}


def test_an_idle_turn_is_cheap_and_uses_indexes() -> None:
    reader = turn()
    for n in range(3):
        launched(gpu_job_launch=note(f"mine-train-{n}"), run_state="running" if n else "success")
    turn(reader)
    with statements() as made:
        turn(reader)
        reader.clusters()
    assert len(made) < 25
    with create_session() as session:
        for statement in made:
            if statement.startswith("SELECT") and "FROM xcom" in statement:
                plan = (
                    session.connection().exec_driver_sql("explain query plan " + statement, _nothing(statement)).all()
                )
                assert not any("SCAN xcom" in step[3] for step in plan), plan


def _nothing(statement: str) -> tuple[Any, ...]:
    return tuple("1" for _ in range(statement.count("?")))


def test_only_one_process_reads_at_a_time() -> None:
    first, second = Filling("first"), Filling("second")
    assert first.is_mine()
    assert not second.is_mine()
    first.give_up()
    assert second.is_mine()
    # One that has died is replaced.
    with create_session() as session:
        past = datetime.now(timezone.utc) - timedelta(seconds=1)
        session.execute(update(sources).where(sources.c.name == places.AIRFLOW).values(read_until=past))
    assert first.is_mine()
    assert not second.is_mine()


def test_of_many_that_begin_at_once_one_reads() -> None:
    barrier = threading.Barrier(6)
    mine: list[bool] = []

    def begin(n: int) -> None:
        barrier.wait()
        mine.append(Filling(f"process {n}").is_mine())

    threads = [threading.Thread(target=begin, args=[n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(mine) == [False] * 5 + [True]


def test_a_database_that_is_not_migrated_is_left_alone_and_noticed_later() -> None:
    with create_session() as session:
        manager = GpuClusterDBManager(session)
        manager.downgrade("base")
    reader = Filling("here")
    try:
        assert not reader.is_mine()
        reader.give_up()
    finally:
        manager.upgradedb()
    launched(gpu_job_launch=note())
    turn(reader)
    assert list(rows()) == ["mine-train-1"]


def test_a_ledger_ends_rows_and_adds_rows_that_airflow_has_forgotten() -> None:
    launched(gpu_job_launch=note())
    turn()
    write_answer("lab", answer(line(), line("mine-gone-2", gpu_seconds=5.0), line("by-hand", dag_id=None), offset=9))
    found = rows()
    assert set(found) == {"mine-train-1", "mine-gone-2"}
    assert (found["mine-train-1"]["state"], found["mine-train-1"]["gpu_seconds"]) == ("SUCCEEDED", 100.0)
    # What an earlier program has written does not say when it was submitted.
    assert found["mine-gone-2"]["submitted_at"] == NOON + timedelta(hours=1, seconds=-60)
    (asked,) = {request_to(filling.ClusterToAsk("lab", ()))["place"]["offset"]}
    assert asked == 9


def test_an_attempt_that_is_followed_is_no_end() -> None:
    first = line(state="FAILED", reason="preempted", goes_on=True, submitted_at=NOON.isoformat())
    write_answer("lab", answer(first))
    assert (rows()["mine-train-1"]["state"], rows()["mine-train-1"]["attempt"]) == ("QUEUED", 2)
    write_answer("lab", answer(line(attempt=2, submitted_at=(NOON + timedelta(hours=1)).isoformat())))
    row = rows()["mine-train-1"]
    assert (row["state"], row["reason"], row["gpu_seconds"], row["submitted_at"]) == ("SUCCEEDED", None, 200.0, NOON)


@pytest.mark.parametrize("told", [{"array": "mine-sweep-x", "element": 1}, {}])
def test_elements_are_of_their_array(told: dict[str, Any]) -> None:
    array = "mine-sweep-x" if told else "mine-sweep-20261128T120000-0123abcd"
    write_answer("lab", answer(line(f"{array}_1", state="FAILED", reason="user_error", **told)))
    write_answer("lab", answer(line(f"{array}_0", **({**told, "element": 0} if told else {}))))
    (row,) = rows().values()
    assert (row["job_id"], row["element_count"], row["state"], row["gpu_seconds"]) == (array, 2, "FAILED", 200.0)


def test_what_files_tell_of_jobs_that_go_on() -> None:
    for n in range(4):
        launched(gpu_job_launch=note(f"mine-train-{n}"))
    turn()
    told = [
        {"job_id": "mine-train-0", "state": "RUNNING", "attempt": 1, "host": "gpu1", "started_at": NOON.isoformat()},
        {"job_id": "mine-train-1", "state": None},
        {"job_id": "mine-train-2", "state": "UNKNOWN"},
        {"job_id": "mine-train-3", "state": ["?"], "attempt": "x"},
    ]
    # As long as there is more in the ledger, it may tell how a job has ended whose files are gone.
    write_answer("lab", answer(is_all=False, jobs=told))
    assert {row["state"] for row in rows().values()} == {"QUEUED"}
    write_answer("lab", answer(jobs=told))
    found = rows()
    assert [found[f"mine-train-{n}"]["state"] for n in range(4)] == ["RUNNING", "UNKNOWN", "QUEUED", "QUEUED"]
    assert found["mine-train-1"]["message"] == GONE
    # Nobody asks about that one any more.
    _, (cluster,) = Filling("here").clusters()
    assert set(cluster.job_ids) == {"mine-train-0", "mine-train-2", "mine-train-3"}


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"job_id": 5},
        {"job_id": "../x"},
        {"state": "HAPPY"},
        {"attempt": True},
        {"at": "soon"},
        {"at": "9999-12-31T23:59:59+00:00"},
        {"dag_id": ["x"]},
        {"run_id": "x" * 9000, "gpu_seconds": float("nan"), "metrics": {"a": float("inf"), "\x00": "\ud800"}},
        {"map_index": 10**30, "gpus": -1, "host": {"a": 1}, "array": "..", "element": -5},
    ],
)
def test_nonsense_in_a_ledger_does_no_harm(nonsense: dict[str, Any]) -> None:
    first = {} if nonsense == {} else line("mine-odd-9", **nonsense) if "job_id" not in nonsense else line(**nonsense)
    write_answer("lab", answer(first, line()))
    assert rows()["mine-train-1"]["state"] == "SUCCEEDED"


def test_rows_are_kept_for_as_long_as_the_option_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(timezone.utc)
    write_answer(
        "lab", answer(line("mine-old-1"), line("mine-new-2", at=now.isoformat(), submitted_at=now.isoformat()))
    )
    with create_session() as session:
        session.execute(update(jobs).where(jobs.c.job_id == "mine-old-1").values(submitted_at=now - timedelta(days=31)))
    reader = Filling("here")
    reader.forget_old()
    assert len(rows()) == 2
    monkeypatch.setenv("AIRFLOW__GPU_CLUSTER__KEEP_JOBS_DAYS", "30")
    reader.forget_old()
    assert list(rows()) == ["mine-new-2"]
    with create_session() as session:
        assert len(session.execute(select(attempts)).all()) == 1


class Clusters:
    """Stands for clusters: what they answer, and what they were asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def __call__(self, conn_id: str, verb: str, request: Any, **_: Any) -> Any:
        assert verb == "read-ledger"
        self.asked.append(request)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> Clusters:
    found = Clusters()
    monkeypatch.setattr("airflow_provider_gpu_cluster.plugins.live.asking.ask", found)
    return found


def test_clusters_are_asked_often_only_while_somebody_looks(clusters: Clusters) -> None:
    launched(gpu_job_launch=note())
    reader = Filling("here")

    async def turns(background: JobFilling, count: int) -> int:
        before = len(clusters.asked)
        for _ in range(count):
            await background.turn(reader)
            await background.asked()
        return len(clusters.asked) - before

    async def all_of_it() -> None:
        background = JobFilling(viewed_every_s=0.0)
        # In several parts: the whole ledger at once.
        clusters.answers = [answer(is_all=False, offset=5), answer(offset=7)]
        assert await turns(background, 2) == 2
        assert [request["place"]["offset"] for request in clusters.asked] == [0, 5]
        assert clusters.asked[0]["jobs"] == ["mine-train-1"]
        viewers = Viewers()
        viewers.note()
        viewers._pool.shutdown()
        clusters.answers = [answer(offset=7), answer(line(), offset=9)]
        assert await turns(background, 2) == 2
        # Nothing goes on there any more.
        assert await turns(background, 2) == 0

    asyncio.run(all_of_it())
    assert rows()["mine-train-1"]["state"] == "SUCCEEDED"


def test_a_cluster_out_of_reach_is_asked_less_and_less(clusters: Clusters, caplog: pytest.LogCaptureFixture) -> None:
    launched(gpu_job_launch=note())
    clusters.answers = [GpuClusterConnectionError("no route to host")] * 9

    async def all_of_it() -> None:
        background, reader = JobFilling(viewed_every_s=0.05, seldom_s=0.2), Filling("here")
        Viewers().note()
        until = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < until:
            await background.turn(reader)
            await background.asked()

    asyncio.run(all_of_it())
    assert 1 <= len(clusters.asked) <= 4
    assert len([record for record in caplog.records if "no route to host" in record.getMessage()]) == 1


def test_the_background_task_begins_and_ends_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Filler:
        async def run(self) -> None:
            happened.append("filling")
            try:
                await asyncio.sleep(3600)
            finally:
                happened.append("end of filling")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        happened.append(scope["type"])

    monkeypatch.setattr(job_filling, "JobFilling", Filler)
    table = FilledTable(app)
    asyncio.run(table({"type": "http"}, None, None))
    asyncio.run(table({"type": "lifespan"}, None, None))
    assert happened == ["http", "filling", "lifespan", "end of filling"]
