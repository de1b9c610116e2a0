"""Pages of a job that stay open: behind a real sshd, a real uvicorn and Airflow's own login."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.plugins.live import hub
from airflow_provider_gpu_cluster.watch import loop
from tests.harness import jobs
from tests.harness.api_server import DAG, Rights, launched, token
from tests.plugins.live.conftest import Server
from tests.servers.proxy import CutProxy
from tests.watch.test_watcher import steps

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn", "quick")


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return the address of a job that goes on by a step for each file ``go-n``; it ends with the test."""
    submission = jobs.submit(cluster, steps(tmp_path, 3), job_id="job", gpus=1)
    yield launched(submission.handle.to_json())
    for number in (1, 2, 3):
        (tmp_path / f"go-{number}").touch()


def test_twenty_pages_of_a_job_are_one_connection_and_one_look(
    server: Server, job: Callable[..., str], proxied: CutProxy, tmp_path: Path
) -> None:
    pages = [server.open(job("/live"), user=f"user-{number}", follow_log=True) for number in range(20)]
    for page in pages:
        page.until_state("RUNNING")
        page.until("log")
    (tmp_path / "go-1").touch()
    for page in pages:
        page.until_line("line-1")
        page.until("progress", lambda message: message["points"][-1]["values"] == {"step": 1})
    assert proxied.connections == 1


def test_events_tell_the_same_where_no_socket_comes_through(
    server: Server, job: Callable[..., str], tmp_path: Path
) -> None:
    with server.events(job("/events", follow_log="true")) as messages:
        kinds: dict[str, Any] = {}
        for message in messages:
            kinds[message["type"]] = message
            if "job" in kinds and kinds["job"]["job"]["state"] == "RUNNING" and "log" in kinds:
                (tmp_path / "go-1").touch()
            if "progress" in kinds and "line-1" in kinds["log"]["lines"]:
                break
    assert kinds["progress"]["points"][0]["values"] == {"step": 1}


def test_a_page_lives_through_an_outage_and_a_restart_and_says_so(
    server: Server, job: Callable[..., str], proxied: CutProxy, tmp_path: Path
) -> None:
    page = server.open(job("/live"), follow_log=True)
    page.until_state("RUNNING")
    page.until("log")
    proxied.refusing = True
    proxied.cut_now()
    assert "error" in page.until("outage")
    # Who comes meanwhile is told at once, and what is known is still shown.
    late = server.open(job("/live"))
    late.until("outage")
    assert late.until("job")["job"]["state"] == "RUNNING"
    (tmp_path / "go-1").touch()
    proxied.refusing = False
    page.until("back")
    page.until_line("line-1")
    port = server.port
    server.end()
    assert page.until_closed() == 1012
    server.start(port)
    again = server.open(job("/live"), follow_log=True)
    again.until_state("RUNNING")
    again.until("log")
    (tmp_path / "go-2").touch()
    again.until_line("line-2")


def test_the_page_of_a_task_follows_its_jobs(server: Server, cluster: Cluster, tmp_path: Path) -> None:
    task = launched(None, state="running")
    page = server.open(task("/live"))
    assert page.until("waiting")["sentence"]
    for number in (1, 2):
        submission = jobs.submit(cluster, "true", job_id=f"job-{number}", gpus=0)
        leave_handle(task, submission.handle.to_json())
        found = page.until("job", lambda message, number=number: message["job"]["job_id"] == f"job-{number}")  # type: ignore[misc]
        assert found["job"]["may"]["read_log"]
    page.until_state("SUCCEEDED")


def leave_handle(task: Callable[..., str], handle: Any) -> None:
    """Leave a job in a task's XCom, as a launch does."""
    run_id = unquote(task().split("/")[8])
    with create_session() as session:
        where = {"dag_id": DAG, "run_id": run_id, "task_id": "group.train", "map_index": -1, "key": "return_value"}
        session.query(XComModel).filter_by(**where).delete()
        run = session.query(DagRun).filter_by(dag_id=DAG, run_id=run_id).one()
        session.add(XComModel(dag_run_id=run.id, value=handle, **where))


def test_who_may_not_read_logs_is_told_nothing_of_what_the_job_prints_or_reports(
    server: Server, job: Callable[..., str], rights: Rights, tmp_path: Path
) -> None:
    rights.discard(("GET", DagAccessEntity.TASK_LOGS))
    page = server.open(job("/live"), follow_log=True)
    page.until_state("RUNNING")
    for number in (1, 2, 3):
        (tmp_path / f"go-{number}").touch()
    page.until_state("SUCCEEDED")
    assert {message["type"] for message in page.seen} <= {"job", "alive"}
    assert {repr(message["job"]["progress"]) for message in page.seen if message["type"] == "job"} == {"None"}


def test_a_right_that_is_withdrawn_ends_what_it_allowed(
    server: Server, job: Callable[..., str], rights: Rights, tmp_path: Path
) -> None:
    page = server.open(job("/live"), follow_log=True)
    page.until("log")
    assert page.until_state("RUNNING")["may"] == {"read_log": True, "cancel": True, "clear": True}
    rights.discard(("GET", DagAccessEntity.TASK_LOGS))
    page.until("job", lambda message: not message["job"]["may"]["read_log"])
    rights.clear()
    assert page.until("gone")["status"] == 403
    assert page.until_closed() == 1000


def test_a_login_that_ends_closes_the_page(server: Server, job: Callable[..., str]) -> None:
    mine = token()
    page = server.open(job("/live"), headers={"Authorization": f"Bearer {mine}"})
    page.until("job")
    get_auth_manager().revoke_token(mine)
    assert page.until("gone")["status"] in (401, 403)
    assert page.until_closed() == 1000


@pytest.mark.parametrize("message", ["no json", "[1]", "x" * 300_000, '{"a": ' * 100_000], ids=str.__len__)
def test_a_page_that_sends_nonsense_is_closed(server: Server, message: str) -> None:
    page = server.open(launched(None, state="running")("/live"))
    page.socket.send(message)
    assert page.until_closed() == 1008


def test_a_job_is_followed_no_longer_when_nobody_looks(
    server: Server, job: Callable[..., str], monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(loop, "LINGER_S", 0.2)
    page = server.open(job("/live"))
    page.until_state("RUNNING")
    page.close()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("watcher of ")])
    assert not any(one.jobs for one in hub._hubs.values())
