"""The list of all jobs, behind Airflow's own login."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert, select, update

from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from airflow_provider_gpu_cluster.job_table.migrated import NOT_MIGRATED
from airflow_provider_gpu_cluster.job_table.search import search_text
from airflow_provider_gpu_cluster.job_table.tables import details, jobs
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX
from tests.harness.airflow_database import make_database
from tests.harness.api_server import own_part

PATH = f"{URL_PREFIX}/api/jobs"
NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    make_database()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The API, for a user who may read the DAGs ``mine`` and ``ours``, and the logs of ``mine``."""

    def may(self: SimpleAuthManager, *, details: Any = None, access_entity: Any = None, **_: Any) -> bool:
        assert access_entity is DagAccessEntity.TASK_LOGS
        return bool(details.id == "mine")

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", may)
    monkeypatch.setattr(SimpleAuthManager, "get_authorized_dag_ids", lambda self, **_: {"mine", "ours"})
    with create_session() as session:
        session.execute(delete(jobs))
    with own_part(monkeypatch) as client:
        user = SimpleAuthManagerUser(username="ada", role="VIEWER")
        client.headers["Authorization"] = f"Bearer {get_auth_manager().generate_jwt(user)}"
        yield client


def job(dag_id: str = "mine", *, progress: Any = None, metrics: Any = None, **more: Any) -> str:
    """Put a job into the table, and return its id."""
    job_id = f"{dag_id}-train-{uuid.uuid4().hex[:8]}"
    row: dict[str, Any] = {
        "conn_id": "lab",
        "job_id": job_id,
        "dag_id": dag_id,
        "run_id": "r1",
        "task_id": "train",
        "state": "RUNNING",
        "submitted_at": NOON,
        **more,
    }
    row["search_text"] = search_text([row["job_id"], dag_id, row.get("user_name")], row.get("message"))
    with create_session() as session:
        session.execute(insert(jobs).values(row))
        key = session.scalar(select(jobs.c.id).where(jobs.c.job_id == job_id))
        session.execute(insert(details).values(job=key, progress=progress, metrics=metrics))
    return job_id


def asked(client: TestClient, **query: Any) -> Any:
    response = client.get(PATH, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def ids(answer: Any) -> list[str]:
    return [row["job_id"] for row in answer["jobs"]]


def test_only_jobs_of_dags_that_the_user_may_read_are_listed(client: TestClient) -> None:
    job("theirs")
    seen = [job("mine"), job("ours")]
    assert sorted(ids(asked(client))) == sorted(seen)
    assert asked(client)["total"] == 2
    assert asked(client, dag_id="theirs")["jobs"] == []
    assert asked(client, q="theirs")["total"] == 0
    assert client.get(f"{PATH}/choices").json()["dag_id"] == ["mine", "ours"]


def test_who_is_not_logged_in_is_refused(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert [client.get(path).status_code for path in (PATH, f"{PATH}/choices")] == [401, 401]


def test_what_a_job_wrote_is_for_who_may_read_its_log(client: TestClient) -> None:
    job("mine", progress={"step": 1}, metrics={"loss": 0.5})
    job("ours", progress={"step": 1}, metrics={"loss": 0.5})
    rows = asked(client, order_by="dag_id")["jobs"]
    assert [(row["progress"], row["metrics"]) for row in rows] == [({"step": 1}, {"loss": 0.5}), (None, None)]


def test_jobs_are_filtered_sorted_and_paged(client: TestClient) -> None:
    made = [
        job(submitted_at=NOON + timedelta(hours=n), state="FAILED" if n % 2 else "SUCCEEDED", gpu_seconds=3600.0 * n)
        for n in range(6)
    ]
    assert ids(asked(client)) == made[::-1]
    assert ids(asked(client, order_by="submitted_at", limit=2, offset=3)) == made[3:5]
    failed = asked(client, state="FAILED", order_by="-gpu_seconds", limit=1)
    assert (ids(failed), failed["total"], failed["gpu_hours"]) == ([made[5]], 3, 9.0)
    assert asked(client, state=["FAILED", "SUCCEEDED"])["total"] == 6
    # A time without a zone is in UTC.
    assert ids(asked(client, since="2026-11-28T13:00:00", until="2026-11-28T15:00:00Z")) == [made[2], made[1]]
    assert asked(client, user="nobody")["total"] == 0


def test_what_is_unknown_comes_last_and_ties_are_stable(client: TestClient) -> None:
    unknown = job()
    known = [job(gpu_seconds=1.0), job(gpu_seconds=1.0), job(gpu_seconds=2.0)]
    assert ids(asked(client, order_by="gpu_seconds")) == [*known, unknown]
    assert ids(asked(client, order_by="-gpu_seconds")) == [known[2], known[1], known[0], unknown]


@pytest.mark.parametrize("words", ["ada", "ADA  out", "100%", "a_b", "ünï", "c:\\x", "it's"])
def test_every_word_must_occur(client: TestClient, words: str) -> None:
    found = job(user_name="Ada", message="ran OUT of memory at 100% of a_b, ÜNÏ c:\\x it's")
    job(message="1000 axb")
    assert ids(asked(client, q=words)) == [found]
    assert asked(client, q=f"{words} nowhere")["total"] == 0


@pytest.mark.parametrize(
    "query",
    [{"order_by": "search_text"}, {"limit": 1001}, {"offset": -1}, {"since": "yesterday"}, {"is_latest": "perhaps"}],
)
def test_nonsense_is_refused(client: TestClient, query: dict[str, Any]) -> None:
    assert client.get(PATH, params=query).status_code == 422


def test_filters_that_can_be_chosen(client: TestClient) -> None:
    job(state="FAILED", reason="hang", user_name="ada")
    job("theirs", state="LOST", user_name="bob")
    chosen = client.get(f"{PATH}/choices").json()
    assert (chosen["state"], chosen["reason"], chosen["user"], chosen["conn_id"]) == (
        ["FAILED"],
        ["hang"],
        ["ada"],
        ["lab"],
    )


def test_a_database_that_was_not_migrated_says_so_until_it_is(client: TestClient) -> None:
    with create_session() as session:
        manager = GpuClusterDBManager(session)
        manager.downgrade("base")
    try:
        answer = asked(client)
        assert (answer["is_migrated"], answer["problem"], answer["jobs"]) == (False, NOT_MIGRATED, [])
        assert client.get(f"{PATH}/choices").json()["problem"] == NOT_MIGRATED
    finally:
        manager.upgradedb()
    assert asked(client)["is_migrated"]


def test_earlier_jobs_of_a_task_stay(client: TestClient) -> None:
    first, second = job(), job()
    with create_session() as session:
        session.execute(update(jobs).where(jobs.c.job_id == first).values(is_latest=False))
    assert ids(asked(client)) == [second, first]
    assert ids(asked(client, is_latest=True)) == [second]
