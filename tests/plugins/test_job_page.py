"""The page of a job, behind Airflow's own login."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager, init_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.app import init_middlewares
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.io.xcom import backend
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import ActLine
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins import job_page
from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin
from airflow_provider_gpu_cluster.plugins.job_lookup import JobAnswer, JobLookup
from airflow_provider_gpu_cluster.plugins.manual_end import user_of
from airflow_provider_gpu_cluster.tasks import job_notes
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX

BASE_PATH = "/some/base"
PAGE = f"{BASE_PATH}{URL_PREFIX}/job"
DATA = f"{PAGE}.json"
HANDLE = JobHandle("mine-train-1", "lab", "/jobs/mine-train-1", "host", "2026-01-02T03:04:05+00:00", 1)
TASK = {"dag_id": "mine", "run_id": "manual__2026-01-02T03:04:05+00:00", "task_id": "group.train"}
STATUS = JobStatus(
    HANDLE.job_id,
    JobState.RUNNING,
    attempt=1,
    message="epoch <b>3</b>",
    progress={"step": 3, "total": 10, "<i>loss</i>": "<img src=x>"},
    log_tail="<script>alert(1)</script>\n</pre>& done\n",
)
ACTS: tuple[ActLine, ...] = (
    {
        "kind": "act",
        "at": "2026-01-02T03:04:05.000+00:00",
        "job_id": HANDLE.job_id,
        "act": "submit",
        "by": "ada",
        "through": "Airflow task <b>mine</b>.train, run r1",
        "try_number": 2,
        "host": "worker-1",
        "address": "10.1.2.3",
        "attempt": 1,
        "details": "<script>alert(2)</script>",
    },
)


class Cluster:
    """Stands for the cluster: what it answers, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[JobHandle] = []
        self.answer: JobStatus | Exception = STATUS

    def __call__(self, handle: JobHandle) -> JobAnswer:
        self.asked.append(handle)
        if isinstance(self.answer, Exception):
            raise self.answer
        return JobAnswer(self.answer, acts=ACTS)


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    initdb()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(job_page, "lookup", JobLookup(cluster))
    return cluster


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> Iterator[TestClient]:
    """Airflow's login in front of the plugin, under a base path, for a user who may read the DAG ``mine``."""

    def may(self: SimpleAuthManager, *, details: Any = None, access_entity: Any = None, **_: Any) -> bool:
        return details is not None and details.id == "mine" and access_entity is DagAccessEntity.TASK_LOGS

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", may)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not a secret, and long enough for HS512 " * 2)
    purge_cached_app()
    app = FastAPI(root_path=BASE_PATH)
    for plugin in GpuClusterPlugin.fastapi_apps:
        app.mount(plugin["url_prefix"], plugin["app"])
    init_auth_manager(app)
    init_middlewares(app)
    with TestClient(app, root_path=BASE_PATH) as client:
        yield client
    purge_cached_app()


@pytest.fixture
def browser(server: TestClient) -> TestClient:
    """The same, with the session cookie of a login."""
    server.cookies.set("_token", token())
    return server


def token() -> str:
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role="VIEWER"))


def launched(xcom: Any, *, map_index: int = -1, key: str = "return_value", state: str | None = None) -> dict[str, Any]:
    """Put a task instance with this XCom into the database; return what its page is asked with."""
    task: dict[str, Any] = {**TASK, "run_id": f"manual__{uuid.uuid4()}+00:00", "map_index": map_index}
    with create_session() as session:
        run = DagRun(dag_id="mine", run_id=task["run_id"], run_type=DagRunType.MANUAL)
        session.add(run)
        session.flush()
        session.execute(
            insert(TaskInstance).values(
                **task, id=uuid.uuid4(), pool="default_pool", custom_operator_name="", state=state
            )
        )
        if xcom is not None:
            session.add(XComModel(dag_run_id=run.id, key=key, value=xcom, **task))
    return task


def test_without_a_login_there_is_nothing_to_see(server: TestClient, cluster: Cluster) -> None:
    task = launched(HANDLE.to_json())
    response = server.get(PAGE, params=task)
    assert response.status_code == 401
    assert re.search(r'href="\.\./api/v2/auth/login\?next=', response.text)
    assert server.get(DATA, params=task).status_code == 401
    server.cookies.set("_token", "nonsense")
    assert server.get(DATA, params=task).status_code in (401, 403)
    assert cluster.asked == []


@pytest.mark.parametrize(
    "query",
    [
        {"dag_id": "other"},
        {"dag_id": ["mine", "other"]},
        {"dag_id": "~"},
        {"dag_id": ""},
        {"dag_id": []},
    ],
)
def test_other_dags_are_forbidden(browser: TestClient, cluster: Cluster, query: dict[str, Any]) -> None:
    assert browser.get(DATA, params={**TASK, **query}).status_code == 403
    assert browser.get(PAGE, params={**TASK, **query}).status_code == 403
    assert cluster.asked == []


def test_the_dag_that_is_checked_is_the_dag_that_is_shown(browser: TestClient, cluster: Cluster) -> None:
    task = launched(HANDLE.to_json())
    response = browser.get(DATA, params={**task, "dag_id": ["other", "mine"]})
    assert response.status_code == 200
    assert cluster.asked == [HANDLE]


def test_a_bearer_token_does_as_well_as_the_cookie(server: TestClient) -> None:
    header = {"Authorization": f"Bearer {token()}"}
    response = server.get(DATA, params=launched(HANDLE.to_json()), headers=header)
    assert response.json()["state"] == "RUNNING"


def test_the_page_shows_the_job_that_the_task_launched(browser: TestClient, cluster: Cluster) -> None:
    response = browser.get(PAGE, params=launched(HANDLE.to_json()))
    assert response.status_code == 200
    assert cluster.asked == [HANDLE]
    assert 'data-state="RUNNING"' in response.text
    assert "mine-train-1" in response.text
    assert '<progress aria-label="Progress" value="3" max="10">' in response.text


def test_a_mapped_task_has_a_page_for_each_of_its_jobs(browser: TestClient, cluster: Cluster) -> None:
    task = launched(HANDLE.to_json(), map_index=7)
    assert browser.get(PAGE, params=task).status_code == 200
    assert browser.get(PAGE, params={**task, "map_index": 6}).status_code == 404
    assert len(cluster.asked) == 1


def test_an_array_shows_its_elements_and_each_has_a_page(browser: TestClient, cluster: Cluster) -> None:
    array = replace(HANDLE, array_size=2)
    cluster.answer = replace(STATUS, elements=((JobState.RUNNING, None), (JobState.FAILED, "user_error")))
    task = launched(array.to_json())
    page = browser.get(PAGE, params=task).text
    assert 'element=1" title="1: FAILED, user error" data-state="FAILED">1</a>' in page
    elements = browser.get(DATA, params=task).json()["elements"]
    assert elements == [["RUNNING", "0: RUNNING"], ["FAILED", "1: FAILED, user error"]]
    cluster.answer = STATUS
    assert "all elements" in browser.get(PAGE, params={**task, "element": 1}).text
    assert cluster.asked == [array, array.element(1)]


def test_earlier_attempts_are_a_table(browser: TestClient, cluster: Cluster) -> None:
    preempted: Any = {
        "attempt": 1,
        "reason": "preempted",
        "kind": "preempted",
        "message": "<b>",
        "started_at": "2026-01-02T03:04:07+00:00",
        "ended_at": "2026-01-02T06:06:09+00:00",
        "host": "node7",
        "checkpoint": "checkpoints/step_400.pt",
    }
    failed: Any = {"attempt": 2, "reason": "node_failure", "ended_at": "odd", "started_at": "odd"}
    attempts = (preempted, failed)
    cluster.answer = replace(STATUS, attempt=3, attempts=attempts, recovered={"preempted": 1, "node_failure": 1})
    task = launched(HANDLE.to_json())
    data = browser.get(DATA, params=task).json()
    assert data["attempts"] == [
        ["1", "preempted: <b>", "3 h 02 min 02 s", "node7", "checkpoints/step_400.pt"],
        ["2", "node failure", "", "", ""],
    ]
    assert ["Went on by itself", "preempted (1), node failure (1)"] in data["facts"]
    page = browser.get(PAGE, params=task).text
    assert "<td>preempted: &lt;b&gt;</td><td>3 h 02 min 02 s</td><td>node7</td>" in page
    assert '<section id="attempts">' in page


def test_that_a_job_is_idle_is_text(browser: TestClient, cluster: Cluster) -> None:
    note: Any = {"level": "half", "idle_s": 900.0, "percent": 0.4, "min_percent": 5.0, "window_s": 1800.0}
    note["on_idle"] = "warn"
    cluster.answer = replace(STATUS, idle=note, usage={"why_not": "<b>"})
    page = browser.get(PAGE, params=launched(HANDLE.to_json())).text
    assert '<p id="idle" role="status">This job is idle: its GPU use was 0.4 % in the mean for 15 min' in page
    assert "<dd>not measured: &lt;b&gt;</dd>" in page
    assert '<section id="advice" hidden>' in page


def test_advice_is_text(browser: TestClient, cluster: Cluster) -> None:
    ended: Any = {"seconds": {"running": 600.0}, "asked": {"memory_bytes": 64 << 30}, "peak_memory_bytes": 3 << 30}
    cluster.answer = replace(STATUS, state=JobState.SUCCEEDED, **ended)
    page = browser.get(PAGE, params=launched(HANDLE.to_json())).text
    assert "<li>asked for 64 GiB of host memory, used 3 GiB; memory=&#39;4G&#39; would do</li>" in page
    assert '<p id="idle" role="status" hidden>' in page


@pytest.mark.parametrize(("size", "element"), [(2, 2), (2, 99), (None, 0)])
def test_no_such_element(browser: TestClient, cluster: Cluster, size: int | None, element: int) -> None:
    task = launched(replace(HANDLE, array_size=size).to_json())
    response = browser.get(DATA, params={**task, "element": element})
    assert (response.status_code, response.json()) == (
        404,
        {"detail": f"The job of this task has no element {element}.", "looks_again": False},
    )
    assert cluster.asked == []


def test_a_handle_that_a_custom_xcom_backend_stored_as_text(browser: TestClient) -> None:
    assert browser.get(DATA, params=launched(json.dumps(HANDLE.to_json()))).status_code == 200


def test_a_handle_that_is_stored_outside_the_database(
    browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend's storage is asked only for jobs that a task has launched without leaving its own note."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{tmp_path}")
    monkeypatch.setattr(job_notes, "XCom", backend.XComObjectStorageBackend)
    backend._get_base_path.cache_clear()
    task = launched(f"file://{tmp_path}/handle.json")
    assert browser.get(PAGE, params=task).status_code == 404
    (tmp_path / "handle.json").write_text(json.dumps(HANDLE.to_json()))
    assert HANDLE.job_id in browser.get(PAGE, params=task).text
    noted = {**HANDLE.to_json(), "job_id": "mine-train-2"}
    assert "mine-train-2" in browser.get(PAGE, params=launched(noted, key="gpu_job")).text
    backend._get_base_path.cache_clear()


def test_whatever_a_job_writes_is_text(browser: TestClient) -> None:
    text = browser.get(PAGE, params=launched(HANDLE.to_json())).text
    for hostile in ("<script>alert", "</pre>&", "<b>", "<i>", "<img"):
        assert hostile not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in text


def test_who_has_done_what_is_shown(browser: TestClient) -> None:
    task = launched(HANDLE.to_json())
    cells = [
        "2026-01-02 03:04:05 UTC",
        "submit",
        "1",
        "ada (Airflow task <b>mine</b>.train, run r1, try 2)",
        "worker-1 from 10.1.2.3",
        "<script>alert(2)</script>",
    ]
    assert browser.get(DATA, params=task).json()["acts"] == [cells]
    assert "<td>worker-1 from 10.1.2.3</td>" in browser.get(PAGE, params=task).text


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


def test_the_page_needs_nothing_from_elsewhere(browser: TestClient) -> None:
    response = browser.get(PAGE, params=launched(HANDLE.to_json()))
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["Cache-Control"] == "no-store"
    links = re.findall(r'(?:href|src)="([^"]+)"', response.text)
    assert links
    # All are relative: the page works under whatever path Airflow is served.
    assert not [link for link in links if link.startswith(("/", "http"))]
    for link in ("static/job.css", "static/job.js"):
        assert link in links
        assert browser.get(f"{BASE_PATH}{URL_PREFIX}/{link}").status_code == 200
    assert not re.search(r"<style|style=|<script>|\son\w+=", response.text)


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


@pytest.mark.parametrize("xcom", [None, *ODD])
def test_what_is_no_job_is_told_from_one_that_comes_later(browser: TestClient, cluster: Cluster, xcom: Any) -> None:
    for state, sentence in ((None, "not been started yet"), ("running", "has not launched a job yet")):
        task = launched(xcom, state=state)
        page, data = browser.get(PAGE, params=task), browser.get(DATA, params=task)
        assert (page.status_code, data.status_code, page.headers["Refresh"]) == (404, 404, "5")
        assert sentence in page.text
        assert sentence in data.json()["detail"]
        assert data.json()["looks_again"] is True
    task = launched(xcom, state="success")
    page, data = browser.get(PAGE, params=task), browser.get(DATA, params=task)
    assert (page.status_code, data.status_code) == (404, 404)
    assert "Refresh" not in page.headers
    assert data.json()["looks_again"] is False
    assert ("launched no job" if xcom is None else "something else than a job") in data.json()["detail"]
    assert cluster.asked == []


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
    task = launched(None, state=state)
    page, data = browser.get(PAGE, params=task), browser.get(DATA, params=task)
    assert page.status_code == 404
    assert sentence in page.text
    assert "Refresh" not in page.headers
    assert not data.json()["looks_again"]


def test_handle_without_the_name_of_a_job(browser: TestClient, cluster: Cluster) -> None:
    response = browser.get(PAGE, params=launched({**HANDLE.to_json(), "job_id": "../other"}))
    assert response.status_code == 404
    assert "does not name a job" in response.text
    assert cluster.asked == []


def test_handle_beside_another_return_value_is_found(browser: TestClient) -> None:
    task = launched({"mine": 1})
    with create_session() as session:
        run_id = session.query(DagRun.id).filter_by(dag_id="mine", run_id=task["run_id"]).scalar()
        session.add(XComModel(dag_run_id=run_id, key="gpu_job", value=HANDLE.to_json(), **task))
    assert browser.get(DATA, params=task).status_code == 200


def test_no_such_task_instance(browser: TestClient, cluster: Cluster) -> None:
    response = browser.get(PAGE, params={**TASK, "run_id": "never"})
    assert response.status_code == 404
    assert "no such task instance" in response.text
    assert cluster.asked == []


def test_the_address_cannot_name_a_job_or_a_cluster(browser: TestClient, cluster: Cluster) -> None:
    browser.get(DATA, params={**launched(HANDLE.to_json()), "job_id": "x", "gpu_cluster_conn_id": "y"})
    assert cluster.asked == [HANDLE]


def test_what_is_missing_in_the_address_is_named(browser: TestClient) -> None:
    response = browser.get(PAGE, params={"dag_id": "mine", "map_index": "one"})
    assert response.status_code == 422
    assert "run_id, task_id, map_index" in response.text


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (GpuClusterConnectionError("lab (ml@lab:22) refused <the> connection"), "refused <the> connection"),
        (AirflowNotFoundException("The conn_id `lab` isn't defined"), "isn't defined"),
        (RuntimeError("password=hunter2"), "RuntimeError"),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_no_server_error(
    browser: TestClient, cluster: Cluster, answer: Exception, sentence: str
) -> None:
    cluster.answer = answer
    task = launched(HANDLE.to_json())
    page, data = browser.get(PAGE, params=task), browser.get(DATA, params=task)
    assert (page.status_code, data.status_code) == (200, 200)
    assert sentence in data.json()["error"]
    assert sentence.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in page.text
    assert data.json()["state"] == "UNKNOWN"
    assert not data.json()["final"]
    assert "hunter2" not in page.text + data.text


def test_the_page_of_an_ended_job_says_so_to_its_script(browser: TestClient, cluster: Cluster) -> None:
    cluster.answer = replace(STATUS, state=JobState.SUCCEEDED, ended_at="2026-01-02T03:04:07+00:00")
    assert 'data-final="true"' in browser.get(PAGE, params=launched(HANDLE.to_json())).text
