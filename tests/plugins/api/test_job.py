"""What is told of one job, behind Airflow's own login."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.providers.common.io.xcom import backend
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import insert

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.job_table.tables import jobs
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.plugins.job_model import JobDetail
from airflow_provider_gpu_cluster.plugins.manual_end import user_of
from airflow_provider_gpu_cluster.tasks import job_notes
from tests.harness.api_server import API, BASE_PATH, HANDLE, Rights, Several, launched, token
from tests.plugins.api.conftest import STATUS, Answers


def test_the_job_that_the_task_launched_is_told(browser: TestClient, answers: Answers) -> None:
    answers.told = {
        "acts": [{"kind": "act", "job_id": "x", "at": "2026-01-02", "act": "submit", "by": "<b>ada</b>", "attempt": 1}]
    }
    response = browser.get(launched(HANDLE.to_json())())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    detail = response.json()
    JobDetail.model_validate(detail)
    assert (detail["job_id"], detail["state"], detail["is_final"]) == (HANDLE.job_id, "RUNNING", False)
    # Whatever a job has written is told as it is: as JSON, which no browser takes for a page.
    assert detail["headline"] == "Epoch <b>3</b>"
    assert detail["progress"]["values"] == {"<i>loss</i>": "<img src=x>"}
    assert detail["acts"][0]["by"] == "<b>ada</b>"
    assert detail["may"] == {"read_log": True, "cancel": True, "clear": True}
    assert answers.asked == [("lab", "describe-job", {"job_id": HANDLE.job_id})]


@pytest.mark.parametrize("taken", ["read", "logs", "end"])
def test_what_the_user_may_not_is_not_told(browser: TestClient, answers: Answers, rights: Rights, taken: str) -> None:
    entity = DagAccessEntity.TASK_LOGS if taken == "logs" else DagAccessEntity.TASK_INSTANCE
    rights.remove(("PUT" if taken == "end" else "GET", entity))
    response = browser.get(launched(HANDLE.to_json())())
    if taken == "read":
        assert response.status_code == 403
        assert answers.asked == []
        return
    detail = response.json()
    may_read_log = taken != "logs"
    assert detail["may"] == {"read_log": may_read_log, "cancel": taken != "end", "clear": taken != "end"}
    assert (detail["progress"] is not None) == may_read_log
    assert ("loss" in response.text) == may_read_log


@pytest.mark.parametrize("dag_id", ["other", "~"])
def test_other_dags_are_forbidden(browser: TestClient, answers: Answers, dag_id: str) -> None:
    path = launched(HANDLE.to_json(), dag_id=dag_id)()
    assert browser.get(path).status_code == 403
    # The DAG that is checked is the DAG that is told.
    assert browser.get(f"{path}&dag_id=mine").status_code == 403
    assert answers.asked == []


def test_a_bearer_token_does_as_well_as_the_cookie(server: TestClient) -> None:
    header = {"Authorization": f"Bearer {token()}"}
    assert server.get(launched(HANDLE.to_json())(), headers=header).json()["state"] == "RUNNING"


def test_a_mapped_task_has_a_page_for_each_of_its_jobs(browser: TestClient, answers: Answers) -> None:
    address = launched(HANDLE.to_json(), map_index=7)
    assert browser.get(address()).status_code == 200
    assert browser.get(address(map_index=6)).status_code == 404
    assert len(answers.asked) == 1


def test_an_array_tells_its_elements_and_each_is_a_job(browser: TestClient, answers: Answers) -> None:
    array = replace(HANDLE, array_size=2)
    answers.status = replace(STATUS, elements=((JobState.RUNNING, None), (JobState.FAILED, "user_error")))
    address = launched(array.to_json())
    detail = browser.get(address()).json()
    assert detail["array"] == {"size": 2, "counts": {"RUNNING": 1, "FAILED": 1}, "parts": None}
    assert detail["elements"] == [["RUNNING", None], ["FAILED", "user_error"]]
    answers.status = STATUS
    one = browser.get(address(element=1)).json()
    assert (one["job_id"], one["array"]) == (array.element(1).job_id, None)
    assert (one["element"], one["element_count"]) == (1, 2)


@pytest.mark.parametrize(("size", "element"), [(2, 2), (2, 99), (None, 0)])
def test_no_such_element(browser: TestClient, answers: Answers, size: int | None, element: int) -> None:
    response = browser.get(launched(replace(HANDLE, array_size=size).to_json())(element=element))
    sentence = f"The job of this task has no element {element}."
    assert (response.status_code, response.json()) == (404, {"detail": sentence, "looks_again": False})
    assert answers.asked == []


@pytest.mark.parametrize("query", [{"element": -1}, {"element": "x"}, {"map_index": -2}, {"wait_s": 1e9}])
def test_wrong_arguments_are_told_in_one_sentence(browser: TestClient, query: dict[str, Any]) -> None:
    response = browser.get(launched(HANDLE.to_json())(**query))
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"The request is not as it should be: {next(iter(query))}: ")


def test_a_handle_that_a_custom_xcom_backend_stored_as_text(browser: TestClient) -> None:
    assert browser.get(launched(json.dumps(HANDLE.to_json()))()).status_code == 200


def test_a_handle_that_is_stored_outside_the_database(
    browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend's storage is asked only for jobs that a task has launched without leaving its own note."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{tmp_path}")
    monkeypatch.setattr(job_notes, "XCom", backend.XComObjectStorageBackend)
    backend._get_base_path.cache_clear()
    address = launched(f"file://{tmp_path}/handle.json")
    assert browser.get(address()).status_code == 404
    (tmp_path / "handle.json").write_text(json.dumps(HANDLE.to_json()))
    assert browser.get(address()).json()["job_id"] == HANDLE.job_id
    noted = {**HANDLE.to_json(), "job_id": "mine-train-2"}
    assert browser.get(launched(noted, key="gpu_job")()).json()["job_id"] == "mine-train-2"
    backend._get_base_path.cache_clear()


ODD = [
    "text",
    "",
    7,
    True,
    [1],
    {},
    {"metrics": {}},
    {**HANDLE.to_json(), "job_id": ["a"]},
    {**HANDLE.to_json(), "gpu_cluster_conn_id": {"a": 1}},
    {**HANDLE.to_json(), "submitted_at": "yesterday"},
    {**HANDLE.to_json(), "submitted_at": 1.5},
    {**HANDLE.to_json(), "gpus": "many"},
    {**HANDLE.to_json(), "array_size": 1e9},
    {**HANDLE.to_json(), "array_size": -1},
    {key: value for key, value in HANDLE.to_json().items() if key != "engine"},
    {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]},
    "x" * 1_000_000,
    "[" * 100_000,
    "not json {",
]


def test_what_is_no_job_is_told_from_one_that_comes_later(browser: TestClient, answers: Answers) -> None:
    for xcom in (None, *ODD):
        for state, sentence in ((None, "not been started yet"), ("running", "has not launched a job yet")):
            response = browser.get(launched(xcom, state=state)())
            assert response.status_code == 404
            assert sentence in response.json()["detail"]
            assert response.json()["looks_again"] is True
        response = browser.get(launched(xcom, state="success")())
        assert (response.status_code, response.json()["looks_again"]) == (404, False)
        assert ("launched no job" if xcom is None else "something else than a job") in response.json()["detail"]
    assert answers.asked == []


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("failed", "failed before it launched a job, or was marked failed"),
        ("skipped", "was skipped"),
        ("upstream_failed", "a task before it failed"),
        ("removed", "no longer in the DAG"),
    ],
)
def test_task_that_ended_without_a_job_says_what_it_is(browser: TestClient, state: str, sentence: str) -> None:
    response = browser.get(launched(None, state=state)())
    assert response.status_code == 404
    assert sentence in response.json()["detail"]
    assert not response.json()["looks_again"]


def test_handle_without_the_name_of_a_job(browser: TestClient, answers: Answers) -> None:
    response = browser.get(launched({**HANDLE.to_json(), "job_id": "../other"})())
    assert response.status_code == 404
    assert answers.asked == []


def test_handle_beside_another_return_value_is_found(browser: TestClient) -> None:
    assert browser.get(launched(Several(return_value={"mine": 1}, gpu_job=HANDLE.to_json()))()).status_code == 200


def test_no_such_task_instance(browser: TestClient, answers: Answers) -> None:
    response = browser.get(f"{API}/dags/mine/dagRuns/never/taskInstances/t/job")
    assert (response.status_code, answers.asked) == (404, [])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (GpuClusterConnectionError("lab: no route to host"), "lab: no route to host"),
        (AirflowNotFoundException("The conn_id `lab` isn't defined"), "isn't defined"),
        (RuntimeError("password=hunter2"), "An unexpected RuntimeError"),
        (asyncio.TimeoutError(), "has not answered in time"),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_told_with_what_is_known(
    browser: TestClient, answers: Answers, error: Exception, sentence: str
) -> None:
    address = launched(HANDLE.to_json())
    answers.status = error
    response = browser.get(address())
    assert response.status_code == 200
    detail = response.json()
    JobDetail.model_validate(detail)
    assert (detail["state"], detail["as_of"], detail["job_dir"]) == ("UNKNOWN", None, HANDLE.job_dir)
    assert sentence in detail["error"]
    assert "hunter2" not in response.text


def test_a_cluster_that_stays_silent_keeps_nobody_waiting(browser: TestClient, answers: Answers) -> None:
    answers.is_silent = True
    detail = browser.get(launched(HANDLE.to_json())(wait_s=0)).json()
    assert (detail["state"], detail["error"]) == ("UNKNOWN", None)
    assert detail["headline"] == "The cluster has not answered yet."


def test_no_answer_is_kept_or_taken_for_a_page(browser: TestClient) -> None:
    for path in (launched(HANDLE.to_json())(), f"{API}/nothing", f"{API}/openapi.json"):
        headers = browser.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_text_of_an_unexpected_error_stays_on_the_server(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def leak(*_: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("airflow_provider_gpu_cluster.plugins.api.job.job_of", leak)
    response = browser.get(launched(HANDLE.to_json())())
    assert response.status_code == 500
    assert "An unexpected RuntimeError" in response.json()["detail"]
    assert "hunter2" not in response.text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "hunter2" in caplog.text


def test_old_addresses_lead_into_airflows_frame(browser: TestClient) -> None:
    query = {"dag_id": "mine", "run_id": "r/1", "task_id": "t", "map_index": 3, "element": 2}
    response = browser.get(f"{BASE_PATH}/gpu-cluster/job", params=query, follow_redirects=False)
    assert response.headers["location"] == f"{BASE_PATH}/dags/mine/runs/r%2F1/tasks/t/mapped/3/plugin/gpu-job?element=2"


@pytest.mark.parametrize(
    ("header", "user"),
    [
        (b"cookie: _token={}", "ada"),
        (b"authorization: Bearer {}", "ada"),
        (b"authorization: Bearer x{}", None),
        (b"x: {}", None),
    ],
)
def test_who_ends_a_task_by_hand_is_known(server: TestClient, header: bytes, user: str | None) -> None:
    name, _, value = header.replace(b"{}", token().encode()).partition(b": ")
    scope = {"type": "http", "method": "PATCH", "path": "/", "query_string": b"", "headers": [(name, value)]}
    assert asyncio.run(user_of(scope)) == user


def test_a_cluster_that_is_silent_leaves_what_the_table_knows_with_earlier_jobs(
    browser: TestClient, answers: Answers
) -> None:
    answers.is_silent = True
    # The table is that of all tests of this process.
    handle = replace(HANDLE, job_id=f"latest-{uuid.uuid4()}")
    address = launched(handle.to_json())
    found = re.search("dagRuns/([^/]+)/taskInstances/([^/]+)/", address("/x"))
    assert found is not None
    task = {"dag_id": "mine", "run_id": found.group(1).replace("%2B", "+"), "task_id": found.group(2), "map_index": -1}
    earlier = f"earlier-{uuid.uuid4()}"
    with create_session() as session:
        rows = (
            (handle.job_id, "lab", "SUCCEEDED", 3),
            (handle.job_id, "gpu01", "CANCELLED", 4),
            (earlier, "lab", "FAILED", 1),
        )
        for job_id, conn_id, state, hour in rows:
            at = datetime(2026, 1, 2, hour, tzinfo=timezone.utc)
            values = {**task, "job_id": job_id, "conn_id": conn_id, "state": state, "attempt": 1, "submitted_at": at}
            session.execute(insert(jobs).values(**values, search_text=""))
    detail = browser.get(address(wait_s=0)).json()
    JobDetail.model_validate(detail)
    assert (detail["state"], detail["is_final"], detail["as_of"]) == ("SUCCEEDED", True, None)
    assert [(one["job_id"], one["conn_id"], one["state"]) for one in detail["earlier"]] == [
        (handle.job_id, "gpu01", "CANCELLED"),
        (earlier, "lab", "FAILED"),
    ]
    before = browser.get(address(wait_s=0, conn_id="gpu01")).json()
    assert (before["job_id"], before["conn_id"], before["state"]) == (handle.job_id, "gpu01", "CANCELLED")
    assert [one["conn_id"] for one in before["earlier"]] == ["lab", "lab"]
    old = browser.get(address(wait_s=0, job_id=earlier)).json()
    assert (old["job_id"], old["state"], old["earlier"]) == (earlier, "FAILED", [])
    assert browser.get(address(job_id="of-another-task")).status_code == 404
