"""Who may open a page that stays open: each socket and event stream, for whom and from where."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi.routing import APIWebSocketRoute
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.plugins.app import app
from airflow_provider_gpu_cluster.plugins.live import limits
from tests.harness.api_server import API, Rights, launched, token
from tests.harness.routes import open_socket

SOCKETS = ("/jobs/live", "/job/live")
OWN = {"origin": "http://testserver", "host": "testserver"}


def address_of(socket: str) -> str:
    return f"{API}{socket}" if socket == "/jobs/live" else launched(None, state="running")("/live")


def test_all_sockets_are_tried_here() -> None:
    def paths(routes: Any) -> list[str]:
        return [route.path for route in routes if isinstance(route, APIWebSocketRoute)]

    assert sorted(path.rpartition("taskInstances")[2] for path in paths(app.routes)) == sorted(
        ["/api/jobs/live", "/{task_id}/job/live"]
    )


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"cookie": "_token={token}", **OWN}, 101),
        ({"authorization": "Bearer {token}"}, 101),
        ({"cookie": "_token={token}", "sec-fetch-site": "same-origin"}, 101),
        (OWN, 401),
        ({"authorization": "Bearer nonsense"}, 403),
        ({"cookie": "_token=nonsense", **OWN}, 403),
        ({"cookie": "_token={token}"}, 403),
        ({"cookie": "_token={token}", "origin": "https://evil.example"}, 403),
        ({"cookie": "_token={token}", "origin": "null"}, 403),
        ({"cookie": "_token={token}", **OWN, "sec-fetch-site": "cross-site"}, 403),
        ({"cookie": "_token={token}", **OWN, "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_a_socket_is_opened_for_who_is_logged_in_and_from_our_own_pages(
    client: TestClient, socket: str, headers: dict[str, str], status: int
) -> None:
    filled = {name: value.format(token=token()) for name, value in headers.items()}
    assert open_socket(client, address_of(socket), filled) == status


@pytest.mark.parametrize("socket", SOCKETS)
def test_where_nobody_needs_to_log_in_a_socket_is_opened_from_our_own_pages_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, socket: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    address = address_of(socket)
    assert open_socket(client, address, OWN) == 101
    assert open_socket(client, address, {"origin": "https://evil.example"}) == 403
    assert open_socket(client, address, {}) == 403


def test_a_socket_of_a_job_takes_the_right_to_see_it(client: TestClient, rights: Rights) -> None:
    headers = {"authorization": f"Bearer {token()}"}
    assert open_socket(client, launched(None, state="running", dag_id="another")("/live"), headers) == 403
    rights.discard(("GET", DagAccessEntity.TASK_INSTANCE))
    assert open_socket(client, address_of("/job/live"), headers) == 403


def test_events_take_a_login_and_the_right(client: TestClient, rights: Rights) -> None:
    events = launched(None, state="running")("/events")
    assert client.get(events).status_code == 401
    assert client.get(events, headers={"authorization": "Bearer nonsense"}).status_code == 403
    foreign = {"cookie": f"_token={token()}", "origin": "https://evil.example"}
    assert client.get(events, headers=foreign).status_code == 403
    rights.clear()
    assert client.get(events, headers={"authorization": f"Bearer {token()}"}).status_code == 403


@pytest.mark.parametrize(("name", "status"), [("MOST_OF_USER", 429), ("MOST_OPEN", 503)])
def test_only_so_many_are_open_at_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, name: str, status: int
) -> None:
    monkeypatch.setattr(limits, name, 1)
    headers = {"authorization": f"Bearer {token()}"}
    address = address_of("/job/live")
    with contextlib.suppress(CancelledError), client.websocket_connect(address, headers=headers):
        assert open_socket(client, address, headers) == status


def test_what_is_open_is_no_longer_counted_at_its_end(client: TestClient, eventually: Callable[..., Any]) -> None:
    assert open_socket(client, address_of("/job/live"), {"authorization": f"Bearer {token()}"}) == 101
    eventually(lambda: not limits._open)
