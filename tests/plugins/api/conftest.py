"""A cluster that answers what a test says, behind Airflow's login."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from fastapi.testclient import TestClient
from sqlalchemy import insert

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.api import acts, job
from airflow_provider_gpu_cluster.plugins.job_looks import JobLooks
from tests.harness.api_server import API, DAG, EVERYTHING, HANDLE, Rights, api_server, token

STATUS = JobStatus(
    HANDLE.job_id,
    JobState.RUNNING,
    attempt=1,
    message="epoch <b>3</b>",
    started_at="2026-01-02T03:05:00+00:00",
    progress={"step": 3, "total": 10, "<i>loss</i>": "<img src=x>"},
)


TASK_ID = "group.train"


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
    initdb()


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


@pytest.fixture
def launched(database: None) -> Callable[..., str]:
    """Return a function that lets a task have launched a job, and returns the address of the job's routes."""

    def launch(handle: JobHandle, **collected: Any) -> str:
        run_id = f"manual__{uuid.uuid4()}+00:00"
        with create_session() as session:
            run = DagRun(dag_id=DAG, run_id=run_id, run_type=DagRunType.MANUAL)
            session.add(run)
            session.flush()
            for task_id, operator, value in (
                (TASK_ID, "SubmitGpuJobOperator", handle.to_json()),
                ("collect", "CollectGpuJobOperator", collected),
            ):
                task = {"dag_id": DAG, "run_id": run_id, "task_id": task_id, "map_index": -1}
                columns = {"id": uuid.uuid4(), "pool": "default_pool", "custom_operator_name": "", "operator": operator}
                session.execute(insert(TaskInstance).values(**task, **columns))
                if value:
                    session.add(XComModel(dag_run_id=run.id, key="return_value", value=value, **task))
        return f"{API}/dags/{DAG}/dagRuns/{run_id}/taskInstances/{TASK_ID}/job"

    return launch
