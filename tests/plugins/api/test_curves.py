"""The route of a job's curves. What asks the cluster is replaced by the cluster's own verb, called in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.connection.wire_types import checked
from airflow_provider_gpu_cluster.gpu_run.protocol.series import SeriesReply
from airflow_provider_gpu_cluster.gpu_run.series import reading
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.api import access, curves
from tests.gpu_run.series.test_reading import Job

HANDLE = JobHandle("job", "lab", "/jobs/job", "host", "2026-01-02T03:04:05+00:00", 1)
PATH = "/dags/d/dagRuns/r/taskInstances/t/job/curves"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture
def client(job: Job, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    async def ask(conn_id: str, verb: str, request: Any) -> Any:
        assert (conn_id, verb) == ("lab", "read-series")
        return checked(reading.answer(job.root, request).value, SeriesReply)

    monkeypatch.setattr(curves, "ask", ask)
    monkeypatch.setattr(curves, "job_of", lambda address: HANDLE)
    app = FastAPI()
    app.include_router(curves.router)
    # Who may is tested for all routes together.
    app.dependency_overrides[access.may_read_log.dependency] = lambda: None
    return TestClient(app)


def test_curves_as_json(job: Job, client: TestClient) -> None:
    second = job.write({"step": 1, "loss": 0.5, "acc": 1})
    job.write(b'{"step": 2, "loss": NaN}')
    job.write({"t": 1000.5, "s": 2, "memory_bytes": 12}, name="usage")
    answer = client.get(PATH, params={"name": ["loss"], "x": "step"}).json()
    assert answer["curves"] == [{"name": "loss", "at": [0, second], "x": [1, 2], "y": [0.5, None], "t": [None, None]}]
    assert [(one["name"], one["last"]) for one in answer["names"]] == [("step", 2), ("loss", "NaN"), ("acc", 1)]
    assert client.get(PATH, params={"what": "usage"}).json()["curves"][0]["name"] == "host/memory_bytes"


@pytest.mark.parametrize("query", [{"what": "x"}, {"slice": -1}, {"until": "x"}, {"name": ["n"] * 9}, {"x": "x" * 300}])
def test_a_question_that_makes_no_sense_is_refused(client: TestClient, query: dict[str, Any]) -> None:
    assert client.get(PATH, params=query).status_code == 422


def test_secrets_of_airflow_are_hidden_in_names(job: Job, client: TestClient) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret("in-airflow-alone")
    job.write({"step": 1, "in-airflow-alone": 2})
    answer = client.get(PATH)
    assert "in-airflow-alone" not in answer.text
    assert answer.json()["names"][1]["name"] == "***"
