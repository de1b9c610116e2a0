"""The look for abandoned jobs after a request that marks tasks. What it does is tested in a whole Airflow."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.plugins import cluster_access, manual_end
from airflow_provider_gpu_cluster.plugins.manual_end import ManualEnds, end_abandoned_jobs
from airflow_provider_gpu_cluster.plugins.marked_tasks import PartOfDag

ABANDONED = [("first", "job-1"), ("second", "job-2"), ("first", "job-3")]


def now() -> datetime:
    return datetime.now(timezone.utc)


@pytest.mark.parametrize(
    ("method", "path", "answer", "looks"),
    [
        ("PATCH", "/api/v2/dags/d/dagRuns/r/taskInstances/t", 200, 1),
        ("PATCH", "/api/v2/dags/d/dagRuns/r/taskInstances/t/3", 200, 1),
        ("PATCH", "/api/v2/dags/~/dagRuns/~/taskInstances", 200, 1),
        ("PATCH", "/api/v2/dags/d/dagRuns/r", 200, 1),
        ("PATCH", "/api/v2/dags/d/dagRuns/r", 401, 0),
        ("PATCH", "/api/v2/dags/d", 200, 0),
        ("GET", "/api/v2/dags/d/dagRuns/r/taskInstances/t", 200, 0),
        ("POST", "/api/v2/dags/d/dagRuns", 200, 0),
    ],
)
def test_what_marks_tasks_is_followed_by_a_look(
    method: str, path: str, answer: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []
    at: list[datetime] = []
    sent: list[Any] = []
    monkeypatch.setattr(manual_end, "end_what_was_marked", lambda runs, since, user: looked.append(since <= at[0]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        at.append(now())
        await send({"type": "http.response.start", "status": answer})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(ManualEnds(app)({"type": "http", "method": method, "path": path}, None, send))
    assert sent == ["http.response.start", "http.response.body"]
    manual_end._pool.submit(lambda: None).result()
    assert looked == [True] * looks


def test_a_run_that_is_marked_failed_is_read_from_the_body_that_the_app_still_gets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked: list[Any] = []
    got: list[bytes] = []
    pieces = [b'{"state": "fai', b'led", "note": "\xc3\xb6"}']
    monkeypatch.setattr(manual_end, "end_what_was_marked", lambda runs, since, user: marked.extend(runs))

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces[len(got)], "more_body": not got}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in pieces:
            got.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None: ...

    asyncio.run(ManualEnds(app)({"type": "http", "method": "PATCH", "path": "/api/v2/dags/d/dagRuns/r"}, receive, send))
    manual_end._pool.submit(lambda: None).result()
    assert got == pieces
    assert marked == [PartOfDag("d", "r")]


@pytest.mark.parametrize(("answer", "cancelled"), [(204, True), (409, False)])
def test_jobs_of_what_is_deleted_are_looked_up_before_and_cancelled_after(
    answer: int, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []

    def look_up(part: PartOfDag) -> list[tuple[str, str]]:
        steps.append(part)
        return ABANDONED

    monkeypatch.setattr(manual_end, "to_be_deleted", look_up)
    monkeypatch.setattr(manual_end, "cancel_all", lambda jobs, by, user: steps.append(jobs))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        steps.append("deleted")
        await send({"type": "http.response.start", "status": answer})

    async def send(message: Any) -> None: ...

    asyncio.run(ManualEnds(app)({"type": "http", "method": "DELETE", "path": "/api/v2/dags/d"}, None, send))
    manual_end._pool.submit(lambda: None).result()
    assert steps == [PartOfDag("d"), "deleted", *([ABANDONED] if cancelled else [])]


def test_what_is_no_request_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(ManualEnds(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_jobs_of_one_cluster_are_cancelled_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = _clusters(monkeypatch)
    end_abandoned_jobs(now())
    assert cancelled == [("first", ["job-1", "job-3"]), ("second", ["job-2"])]


def test_a_cluster_out_of_reach_keeps_no_other_jobs_alive(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = _clusters(monkeypatch, unreachable="first")
    end_abandoned_jobs(now())
    assert cancelled == [("second", ["job-2"])]
    assert "no route" in caplog.text


def _clusters(monkeypatch: pytest.MonkeyPatch, unreachable: str = "") -> list[tuple[str, list[str]]]:
    """Stand in for clusters and for Airflow's database, and return what is cancelled where."""
    cancelled: list[tuple[str, list[str]]] = []

    class Cluster:
        def __init__(self, conn_id: str, user: str | None) -> None:
            self.name = conn_id

        def __enter__(self) -> Cluster:
            return self

        def __exit__(self, *error: object) -> None: ...

        def cancel(self, job_ids: list[str], *, requested_by: str) -> None:
            if self.name == unreachable:
                raise GpuClusterConnectionError("no route")
            cancelled.append((self.name, job_ids))

    monkeypatch.setattr(manual_end, "abandoned", lambda since: ABANDONED)
    monkeypatch.setattr(cluster_access, "cluster_of", Cluster)
    return cancelled
