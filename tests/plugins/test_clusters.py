"""The clusters and where a GPU is free: what is asked, how often, and who sees what of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.job_table.tables import jobs
from airflow_provider_gpu_cluster.plugins import cluster_rights
from airflow_provider_gpu_cluster.plugins import clusters as module
from airflow_provider_gpu_cluster.plugins.api import clusters as api
from airflow_provider_gpu_cluster.plugins.cluster_view import Viewer, cluster_view
from airflow_provider_gpu_cluster.plugins.clusters import Clusters, KnownCluster
from airflow_provider_gpu_cluster.plugins.live.clusters import live_cluster
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX
from airflow_provider_gpu_cluster.watch import loop
from tests.harness.airflow_database import make_database
from tests.harness.api_server import own_part
from tests.harness.patience import PATIENCE_S
from tests.servers.proxy import CutProxy

ROOT = f"{URL_PREFIX}/api/clusters"
MINE = {"dag_id": "mine", "run_id": "r1", "task_id": "train", "map_index": None, "triggered_by": "ada"}
SECRET = {"dag_id": "payroll", "run_id": "r1", "task_id": "layoffs", "owner": "eve"}


def overview(**changes: Any) -> Any:
    """What a host with four GPUs answers: two jobs of this Airflow, one process of somebody, a queue."""
    gpus = [
        {"state": "leased", "type": "H200", "index": 0, "job": 0, "percent": 91.0, "memory_mb": 1000, "used_mb": 700},
        {"state": "leased", "type": "H200", "index": 1, "job": 1},
        {"state": "other", "type": "H200", "index": 2, "used_by": "process 7 (python), which holds no lease"},
        {"state": "free", "type": "H200", "index": 3},
    ]
    why = "it needs 4 GPUs; of 4 there are 1 free, 1 with mine-train-1 (svc), 1 with payroll-layoffs-1 (svc)"
    jobs = [
        {"is_running": True, "user": "svc", "gpus": 1, "job_id": "mine-train-1", "by": MINE},
        {"is_running": True, "user": "svc", "gpus": 1, "job_id": "payroll-layoffs-1", "by": SECRET},
        {"is_running": False, "user": "svc", "gpus": 4, "job_id": "mine-train-2", "by": MINE, "place": 1, "why": why},
        {"is_running": False, "user": "bob", "gpus": 1, "job_id": "bobs", "place": 2, "why": "it needs 1 GPU"},
    ]
    view = {
        "nodes": [{"name": "gpu01", "is_up": True, "gpus": gpus}],
        "jobs": jobs,
        "waiting_jobs": 2,
        "waiting_gpus": 5,
        "broken_gpus": [{"gpu": "0000:5E:00.0", "why": "GPU is lost"}],
    }
    return {
        "host": "gpu01",
        "engine": "host",
        "python": "3.11.2",
        "hours": [
            {"begins_at": "2026-11-28T14:00:00Z", "gpu_hours": 1, "measured_gpu_hours": 1, "used_gpu_hours": 0.5}
        ],
        "disk": {"free": 5, "total": 10},
        "view": view,
        **changes,
    }


def test_who_may_read_the_connection_sees_all_but_the_names_of_jobs_of_other_dags() -> None:
    detail = cluster_view("lab", KnownCluster(overview()), Viewer({"mine"}, sees_all=True))
    assert detail.counts is not None
    assert (detail.counts.gpus, detail.counts.free, detail.counts.waiting_jobs) == (4, 1, 2)
    assert [job.user for job in detail.jobs] == ["ada", "eve", "ada", "bob"]
    assert [job.task and job.task.job_id for job in detail.jobs] == ["mine-train-1", None, "mine-train-2", None]
    assert detail.jobs[2].why == (
        "it needs 4 GPUs; of 4 there are 1 free, 1 with mine-train-1 (svc), 1 with another job (svc)"
    )
    assert detail.problems == ["GPU 0000:5E:00.0 does not work: GPU is lost"]
    assert (detail.nodes[0].name, detail.nodes[0].gpus[2].used_by) == (
        "gpu01",
        "process 7 (python), which holds no lease",
    )
    text = detail.model_dump_json()
    assert "payroll" not in text
    assert "layoffs" not in text


def test_who_only_has_dags_there_sees_where_gpus_are_free_and_the_own_jobs() -> None:
    known = KnownCluster(overview(fault="nvidia-smi of gpu01 fails"), error="cluster svc@gpu01 refuses the key")
    detail = cluster_view("lab", known, Viewer({"mine"}, sees_all=False))
    assert [gpu.state for gpu in detail.nodes[0].gpus] == ["leased", "leased", "other", "free"]
    assert [job.user for job in detail.jobs] == ["ada", None, "ada", None]
    assert [job.place for job in detail.jobs[2:]] == [1, 2]
    assert detail.error == "It does not answer."
    text = detail.model_dump_json()
    for told in ("gpu01", "payroll", "svc", "bob", "eve", "python", "process 7", "lost"):
        assert told not in text, told


def test_only_the_gpus_where_the_connections_jobs_go_are_counted() -> None:
    free, used = {"state": "free", "type": "a100"}, {"state": "leased", "type": "a100"}
    nodes = [
        {"name": "n1", "is_up": True, "partitions": ["gpu", "all"], "gpus": [free, used]},
        {"name": "n2", "is_up": False, "partitions": ["all"], "gpus": [{"state": "down", "type": "v100"}, free]},
    ]
    view = {"nodes": nodes, "jobs": [], "waiting_jobs": 0, "waiting_gpus": 0, "partition": "gpu,long"}
    detail = cluster_view("lab", KnownCluster(overview(view=view)), Viewer((), sees_all=True))
    assert detail.counts is not None
    assert (detail.counts.gpus, detail.counts.free) == (2, 1)
    assert [(one.name, one.is_default, one.nodes, one.nodes_up, one.gpus, one.free) for one in detail.partitions] == [
        ("gpu", True, 1, 1, 2, 1),
        ("all", False, 2, 1, 4, 2),
    ]


class Site:
    """Stands for the clusters: what each answers, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.checked: list[str] = []
        self.answer: Any = overview()
        self.gate: asyncio.Event | None = None

    async def ask(self, conn_id: str, verb: str, request: Any, *, wait_s: float) -> Any:
        assert (verb, request) == ("overview", {"hours": 24})
        self.asked.append(conn_id)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def check(self, conn_id: str) -> Any:
        self.checked.append(conn_id)
        return {"warnings": ["only 3 MB are free"], "git": "2.39.2", "uv": None, "root_dir": "/jobs"}


@pytest.fixture
def far_site() -> Site:
    return Site()


def test_one_look_serves_all_viewers_and_checks_come_seldom(far_site: Site) -> None:
    async def twenty_viewers() -> list[KnownCluster]:
        clusters = Clusters(far_site.ask, far_site.check)
        known = await asyncio.gather(*(clusters.look("lab") for _ in range(20)))
        await clusters.look("lab")
        cluster = clusters._clusters["lab"]
        assert cluster.check is not None
        await cluster.check
        return known

    known = asyncio.run(twenty_viewers())
    assert far_site.asked == ["lab"]
    assert far_site.checked == ["lab"]
    assert all(one.is_up for one in known)
    assert known[0].check is not None


def test_a_cluster_out_of_reach_delays_nobody_and_its_last_answer_stays(
    far_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.0)
    monkeypatch.setattr(module, "_WAIT_S", 0.05)

    async def story() -> None:
        clusters = Clusters(far_site.ask, far_site.check)
        assert (await clusters.look("lab")).is_up
        # A silent one: what is known comes after a moment, and further viewers start no second look.
        far_site.gate = asyncio.Event()
        for _ in range(3):
            known = await asyncio.wait_for(clusters.look("lab"), PATIENCE_S)
            assert (known.is_up, known.overview) == (True, far_site.answer)
        assert len(far_site.asked) == 2
        before = known.as_of
        last, far_site.answer = far_site.answer, GpuClusterConnectionError("lab: no route to host")
        far_site.gate.set()
        await _until(lambda: clusters.known("lab").error)
        known = clusters.known("lab")
        assert (known.is_up, known.overview, known.error) == (False, last, "lab: no route to host")
        assert known.down_since == before
        # It is looked at again, and nobody waits for that.
        far_site.answer = last
        assert (await clusters.look("lab")).is_up is False
        await _until(lambda: clusters.known("lab").is_up)
        assert clusters.known("lab").down_since is None

    asyncio.run(story())


async def _until(check: Any) -> None:
    async def looked() -> None:
        while not check():
            await asyncio.sleep(0)

    await asyncio.wait_for(looked(), PATIENCE_S)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, far_site: Site) -> Iterator[TestClient]:
    make_database()
    monkeypatch.setattr(api, "clusters", Clusters(far_site.ask, far_site.check))
    monkeypatch.setattr(cluster_rights, "all_connection_ids", lambda: ["lab", "other"])
    monkeypatch.setattr(cluster_rights, "_used_by", lambda dags: {"lab", "no_cluster"})
    with own_part(monkeypatch) as client:
        yield client


def login(role: str) -> dict[str, str]:
    return {
        "Authorization": "Bearer " + get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role=role))
    }


def test_each_user_sees_the_clusters_that_are_theirs_to_see(server: TestClient, far_site: Site) -> None:
    for path in ("", "/lab"):
        assert server.get(ROOT + path).status_code == 401
    assert server.post(f"{ROOT}/lab/check", json={}).status_code in (401, 403)
    for role, conn_ids in (("ADMIN", ["lab", "other"]), ("VIEWER", ["lab"])):
        answer = server.get(ROOT, headers=login(role)).json()
        assert [cluster["conn_id"] for cluster in answer["clusters"]] == conn_ids
    # The list asks no cluster.
    assert far_site.asked == []
    assert server.get(f"{ROOT}/other", headers=login("VIEWER")).status_code == 403
    assert server.get(f"{ROOT}/no_cluster", headers=login("ADMIN")).status_code == 403
    assert server.post(f"{ROOT}/lab/check", headers=login("VIEWER"), json={}).status_code == 403
    assert far_site.asked == far_site.checked == []
    detail = server.get(f"{ROOT}/lab", headers=login("VIEWER")).json()
    assert (detail["host"], detail["may"]) == (None, {"see_all": False, "test": False})
    # A browser that another site has sent has a cookie, and no token that comes along.
    server.cookies.set("_token", login("OP")["Authorization"].removeprefix("Bearer "))
    assert server.post(f"{ROOT}/lab/check", headers={"Origin": "http://evil.example"}, json={}).status_code == 403
    server.cookies.clear()
    checked = server.post(f"{ROOT}/lab/check", headers=login("OP"), json={}).json()
    assert checked["may"] == {"see_all": True, "test": True}
    assert checked["findings"]["warnings"] == ["only 3 MB are free"]
    assert checked["programs"] == {"Python": "3.11.2", "git": "2.39.2", "uv": "none"}
    assert server.get(ROOT, headers=login("OP")).json()["clusters"][0]["counts"]["free"] == 1


def test_a_dag_has_jobs_on_a_cluster_as_the_table_of_jobs_says() -> None:
    make_database()
    row: dict[str, Any] = {"run_id": "r", "task_id": "t", "state": "RUNNING", "search_text": ""}
    at = datetime.now(timezone.utc)
    mine, other = (
        {**row, "submitted_at": at, "conn_id": f"of_{dag}", "job_id": f"{dag}-clusters", "dag_id": dag}
        for dag in ("a", "b")
    )
    with create_session() as session:
        session.execute(insert(jobs).values([mine, other]))
    try:
        assert cluster_rights._used_by({"a", "c"}) == {"of_a"}
    finally:
        with create_session() as session:
            session.execute(delete(jobs).where(jobs.c.job_id.in_([mine["job_id"], other["job_id"]])))


def test_an_answer_that_has_not_changed_is_not_sent_again(
    server: TestClient, far_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.0)
    headers = login("OP")
    server.post(f"{ROOT}/lab/check", headers=headers, json={})
    first = server.get(f"{ROOT}/lab", headers=headers)
    again = {**headers, "If-None-Match": first.headers["etag"]}
    assert server.get(f"{ROOT}/lab", headers=again).status_code == 304
    far_site.answer = overview(disk={"free": 4, "total": 10})
    assert server.get(f"{ROOT}/lab", headers=again).json()["disk"]["free"] == 4
    assert len(far_site.asked) == 4


def test_a_real_cluster_is_looked_at_over_one_connection_and_its_last_answer_outlasts_it(
    gpu_cluster_conn: dict[str, Any], cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps({**gpu_cluster_conn, "port": cut_proxy.port}))
    monkeypatch.setattr(module, "KEEP_S", 0.0)
    for name in ("_FIRST_WAIT_S", "_WAIT_S"):
        monkeypatch.setattr(module, name, PATIENCE_S)
    clusters = Clusters(check=Site().check)

    async def story() -> None:
        for _ in range(3):
            known = await clusters.look("lab")
            assert known.is_up, known.error
        assert cut_proxy.connections == 1
        cut_proxy.refusing = True
        cut_proxy.cut_now()
        await clusters.look("lab")
        await _until(lambda: clusters.known("lab").error)

    asyncio.run(story())
    # The line must not outlive the test's cluster.
    monkeypatch.setattr(loop, "LINGER_S", 0.0)
    live_cluster("lab").watcher.reconnect()
    known = clusters.known("lab")
    detail = cluster_view("lab", known, Viewer((), sees_all=True))
    assert (detail.is_up, detail.down_since) == (False, known.as_of)
    assert [gpu.state for node in detail.nodes for gpu in node.gpus] == ["free"] * 4
    assert len(detail.hours) == 24
    assert detail.disk is not None
