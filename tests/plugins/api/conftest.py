"""A cluster that answers what a test says, behind Airflow's login."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.api import acts, job
from airflow_provider_gpu_cluster.plugins.job_looks import JobLooks
from tests.harness.airflow_database import make_database
from tests.harness.api_server import EVERYTHING, HANDLE, Rights, api_server, token

STATUS = JobStatus(
    HANDLE.job_id,
    JobState.RUNNING,
    attempt=1,
    message="epoch <b>3</b>",
    started_at="2026-01-02T03:05:00+00:00",
    progress={"step": 3, "total": 10, "<i>loss</i>": "<img src=x>"},
)


class Answers:
    """Stands for the cluster, of which no real one is needed here: what it answers, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.status: JobStatus | Exception = STATUS
        self.told: dict[str, Any] = {}
        self.is_silent = False

    async def ask(self, conn_id: str, verb: str, request: dict[str, Any], **_: Any) -> Any:
        self.asked.append((conn_id, verb, request))
        if self.is_silent:
            await asyncio.sleep(3600)
        if isinstance(self.status, Exception):
            raise self.status
        empty = {"spec": {}, "script": "", "code": [], "env_names": [], "attempts": [], "acts": [], "problem": ""}
        return {**empty, **self.told, "status": self.status.to_json()}


@pytest.fixture(scope="session")
def database() -> None:
    make_database()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    looks = JobLooks(answers.ask)
    monkeypatch.setattr(job, "looks", looks)
    monkeypatch.setattr(acts, "looks", looks)
    return answers


@pytest.fixture
def rights() -> Rights:
    """What the user may do; a test may take something away."""
    return set(EVERYTHING)


@pytest.fixture
def server(database: None, monkeypatch: pytest.MonkeyPatch, answers: Answers, rights: Rights) -> Iterator[TestClient]:
    with api_server(monkeypatch, rights) as client:
        yield client


@pytest.fixture
def browser(server: TestClient) -> TestClient:
    """The same, with the session cookie of a login."""
    server.cookies.set("_token", token())
    return server
