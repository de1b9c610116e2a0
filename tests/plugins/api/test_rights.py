"""
Every route and socket asks who is there and what he may: read from the application's own list of routes, so that a new
one cannot be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from airflow_provider_gpu_cluster.plugins.api.access import readable_dags
from airflow_provider_gpu_cluster.plugins.app import app
from tests.harness.api_server import BASE_PATH, Rights, token
from tests.plugins.api.conftest import Answers

# They tell nothing of any job, cluster or user: the pages' own files, what the routes are, and where the page is now.
OPEN = {"/ui", "/api/openapi.json", "/api/docs", "/job"}
# The token of a scraper, or the right to read connections: tests/plugins/test_metrics_page.py.
OF_THEIR_OWN = {"/metrics"}
PARTS = {"dag_id": "mine", "run_id": "r", "task_id": "t", "conn_id": "lab"}


def paths() -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in sorted(route.methods))
        elif isinstance(route, APIWebSocketRoute):
            yield "SOCKET", route.path
        elif isinstance(route, (Mount, Route)):
            yield "GET", re.sub(r"^/ui/.*", "/ui", route.path)


def closed(*, sockets: bool) -> list[tuple[str, str]]:
    return [
        (method, path)
        for method, path in paths()
        if path not in OPEN | OF_THEIR_OWN and (method == "SOCKET") == sockets
    ]


def address(path: str) -> str:
    filled = re.sub(r"{(\w+)(:path)?}", lambda found: PARTS.get(found.group(1), "x"), path)
    return f"{BASE_PATH}/gpu-cluster{filled}"


def ask(client: TestClient, method: str, path: str) -> int:
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
    return client.request(
        method, address(path), headers=headers, content="{}" if method == "POST" else None
    ).status_code


def filters(path: str) -> bool:
    """Return whether a route tells of those DAGs only that the user may read, of which there may be none."""

    def calls(dependant: Dependant) -> Iterator[object]:
        yield dependant.call
        for one in dependant.dependencies:
            yield from calls(one)

    return any(
        isinstance(route, (APIRoute, APIWebSocketRoute))
        and route.path == path
        and readable_dags in calls(route.dependant)
        for route in app.routes
    )


def test_there_are_routes() -> None:
    found = closed(sockets=False)
    assert ("GET", "/api/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/job") in found
    assert len(found) > 2
    assert {path for _, path in paths()} >= OPEN - {"/api/docs"}


@pytest.mark.parametrize(("method", "path"), closed(sockets=False))
def test_without_a_login_there_is_nothing(server: TestClient, answers: Answers, method: str, path: str) -> None:
    assert ask(server, method, path) == 401
    server.cookies.set("_token", "nonsense")
    assert ask(server, method, path) in (401, 403)
    assert answers.asked == []


@pytest.mark.parametrize(("method", "path"), closed(sockets=False))
def test_a_login_that_may_nothing_gets_nothing(
    browser: TestClient, answers: Answers, rights: Rights, method: str, path: str
) -> None:
    rights.clear()
    assert ask(browser, method, path) == (200 if filters(path) else 403)
    assert answers.asked == []


@pytest.mark.parametrize("cookie", ["", "nonsense", "of a user who may nothing"])
@pytest.mark.parametrize(("method", "path"), closed(sockets=True))
def test_no_socket_opens_for_them_either(
    server: TestClient, answers: Answers, rights: Rights, method: str, path: str, cookie: str
) -> None:
    rights.clear()
    if cookie:
        server.cookies.set("_token", token() if "who" in cookie else cookie)
    if "who" in cookie and filters(path):
        pytest.skip("it tells of no DAG then, which tests of its own see")
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)) as refused:
        with server.websocket_connect(address(path), headers=headers) as socket:
            socket.receive_text()
    if isinstance(refused.value, WebSocketDenialResponse):
        assert refused.value.status_code in (401, 403)
    else:
        assert refused.value.code in (1008, 3000, 3003, 4401, 4403)
    assert answers.asked == []
