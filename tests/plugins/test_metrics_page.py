"""The metrics, behind their token and behind Airflow's own login."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.connection import Connection
from airflow.sdk import BaseHook
from airflow.utils.session import create_session
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.plugins import listed_connections, metrics_page
from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLook
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX
from tests.harness.airflow_database import make_database
from tests.harness.api_server import own_part

PAGE = f"{URL_PREFIX}/metrics"
TOKEN = "a-token-of-prometheus"


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    make_database()


class Looks:
    """Stands for the looks at clusters."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def looks(self, conn_ids: list[str]) -> list[ClusterLook]:
        self.asked.append(conn_ids)
        return [ClusterLook("lab")]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(metrics_page, "looks", looks)
    return looks


@pytest.fixture
def set_token(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def set_token(name: str, value: str) -> None:
        monkeypatch.setenv(f"AIRFLOW__GPU_CLUSTER__{name}", value)
        metrics_page.metrics_token.cache_clear()

    set_token("METRICS_TOKEN", TOKEN)
    yield set_token
    metrics_page.metrics_token.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, looks: Looks, set_token: Any) -> Iterator[TestClient]:
    with own_part(monkeypatch) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def login(role: str) -> str:
    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role=role))


def test_the_token_opens_it(server: TestClient) -> None:
    response = server.get(PAGE, headers=bearer(TOKEN))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'gpu_cluster_up{cluster="lab"} 0.0' in response.text.splitlines()
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), bearer(""), bearer(TOKEN + "x"), {"Authorization": f"Basic {TOKEN}"}, bearer("\u00fc")],
    ids=str,
)
def test_nobody_else_learns_anything(server: TestClient, looks: Looks, headers: dict[str, str]) -> None:
    response = server.get(PAGE, headers={name: value.encode("latin-1") for name, value in headers.items()})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "metrics_token" in response.json()["detail"]
    assert looks.asked == []


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_token_opens_nothing(server: TestClient, set_token: Any, value: str) -> None:
    set_token("METRICS_TOKEN", value)
    for token in ("", " ", value):
        assert server.get(PAGE, headers=bearer(token)).status_code == 401


def test_the_token_may_come_from_a_command_which_runs_once(
    server: TestClient, set_token: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("AIRFLOW__GPU_CLUSTER__METRICS_TOKEN")
    set_token("METRICS_TOKEN_CMD", "cat /nonexistent/file")
    response = server.get(PAGE, headers=bearer(TOKEN))
    assert response.status_code == 503
    assert "log says why" in response.json()["detail"]
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    set_token("METRICS_TOKEN_CMD", f"cat {secret}")
    assert server.get(PAGE, headers=bearer("from a file")).status_code == 200
    secret.write_text("changed\n")
    assert server.get(PAGE, headers=bearer("changed")).status_code == 401


@pytest.mark.parametrize(("role", "code"), [("ADMIN", 200), ("OP", 200), ("USER", 403), ("VIEWER", 403)])
@pytest.mark.parametrize("how", ["browser", "header"])
def test_a_login_may_that_may_read_connections(
    server: TestClient, looks: Looks, role: str, code: int, how: str
) -> None:
    if how == "browser":
        server.cookies.set("_token", login(role))
    response = server.get(PAGE, headers=bearer(login(role)) if how == "header" else {})
    assert response.status_code == code
    assert bool(looks.asked) == (code == 200)
    if code == 403:
        assert "may read connections" in response.json()["detail"]


def test_openmetrics_comes_when_it_is_asked_for(server: TestClient) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    response = server.get(PAGE, headers={**bearer(TOKEN), "Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


HIDDEN: dict[str, Any] = {
    "vault": {"conn_type": "gpu_cluster", "host": "a"},
    "hidden_pool": {"conn_type": "gpu_cluster_pool", "extra": '{"members": ["gpu02", "vault"]}'},
}
by_itself = BaseHook.get_connection


def test_the_clusters_are_all_that_airflow_can_list(monkeypatch: pytest.MonkeyPatch) -> None:
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id.in_(["in_database", "database"])).delete()
        session.add(Connection(conn_id="in_database", conn_type="gpu_cluster", host="a"))
        session.add(Connection(conn_id="database", conn_type="postgres", host="a"))
    for name, value in {
        "LAB": json.dumps({"conn_type": "gpu_cluster", "host": "a"}),
        "BY_URI": "gpu-cluster://me@a:22",
        "IN_DATABASE": "gpu-cluster://me@a:22",
        "OTHER": "postgres://me@a/db",
        "SPOILT": "{no json",
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)
    assert listed_connections.connection_ids() == ["by_uri", "in_database", "lab"]
    monkeypatch.setenv("AIRFLOW__GPU_CLUSTER__METRICS_CONN_IDS", " vault, lab,,vault")
    assert listed_connections.connection_ids() == ["vault", "lab"]


def test_a_pool_is_no_cluster_and_its_members_are_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_connections, "_kinds", {})
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id.in_(["in_database", "database"])).delete()
        session.add(Connection(conn_id="in_database", conn_type="gpu_cluster", host="a"))
    # A backend that cannot list what it has.
    monkeypatch.setattr(
        BaseHook,
        "get_connection",
        lambda conn_id: Connection(conn_id=conn_id, **HIDDEN[conn_id]) if conn_id in HIDDEN else by_itself(conn_id),
    )
    for name, members in {"LAB": "gpu01, vault, login", "MORE": "in_database, gpu01, nowhere", "SPOILT": 7}.items():
        value = json.dumps({"conn_type": "gpu_cluster_pool", "extra": {"members": members}})
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)
    monkeypatch.setenv("AIRFLOW_CONN_GPU01", "gpu-cluster://me@a:22")
    monkeypatch.setenv("AIRFLOW_CONN_LOGIN", "ssh://me@a:22")
    assert listed_connections.connection_ids() == ["gpu01", "in_database", "vault"]
    monkeypatch.setenv("AIRFLOW__GPU_CLUSTER__METRICS_CONN_IDS", "vault, hidden_pool, gpu01")
    assert listed_connections.connection_ids() == ["vault", "gpu02", "gpu01"]
    assert listed_connections.all_connection_ids() == ["gpu01", "gpu02", "in_database", "vault"]
