"""
Every route and socket asks who is there and what he may: read from the application's own list of routes, so that a new
one cannot be forgotten.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tests.harness.api_server import BASE_PATH, Rights, token
from tests.harness.patience import PATIENCE_S
from tests.harness.routes import OPEN, address, ask, closed, filters, paths
from tests.plugins.api.conftest import Answers

HEADERS = {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}
# They open for every login, and tell of those DAGs alone that it may read: tests/plugins/live.
FILTERING_SOCKETS = {"/api/jobs/live"}


def refused_sockets() -> list[tuple[str, str]]:
    paths = [path for _, path in closed(sockets=True)]
    without = [(path, cookie) for path in paths for cookie in ("", "nonsense")]
    return without + [(path, "of a user who may nothing") for path in paths if path not in FILTERING_SOCKETS]


def test_there_are_routes() -> None:
    found = closed(sockets=False)
    assert ("GET", "/api/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/job") in found
    assert len(found) > 2
    assert {path for _, path in paths()} >= OPEN


@pytest.mark.parametrize(("method", "path"), closed(sockets=False))
def test_without_a_login_there_is_nothing(server: TestClient, answers: Answers, method: str, path: str) -> None:
    assert ask(server, method, path, BASE_PATH) == 401
    server.cookies.set("_token", "nonsense")
    assert ask(server, method, path, BASE_PATH) in (401, 403)
    assert answers.asked == []


@pytest.mark.parametrize(("method", "path"), closed(sockets=False))
def test_a_login_that_may_nothing_gets_nothing(
    browser: TestClient, answers: Answers, rights: Rights, method: str, path: str
) -> None:
    rights.clear()
    assert ask(browser, method, path, BASE_PATH) in ((200, 403) if filters(path) else (403,))
    assert answers.asked == []


@pytest.mark.parametrize(("path", "cookie"), refused_sockets())
def test_no_socket_opens_for_them_either(
    server: TestClient, answers: Answers, rights: Rights, path: str, cookie: str
) -> None:
    rights.clear()
    if cookie:
        server.cookies.set("_token", token() if "who" in cookie else cookie)
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)) as refused,
        server.websocket_connect(BASE_PATH + address(path), headers=HEADERS) as socket,
    ):
        socket.receive_text()
    if isinstance(refused.value, WebSocketDenialResponse):
        assert refused.value.status_code in (401, 403)
    else:
        assert refused.value.code in (1008, 3000, 3003, 4401, 4403)
    assert answers.asked == []


# Of a job whose task instance does not exist: 404 is the answer to who may see it.
SEEN = 404


def test_the_fab_auth_manager_is_asked_as_well() -> None:
    """In a process of its own, with real users, roles and permissions of FAB."""
    command = [sys.executable, "-m", "tests.harness.fab_server"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert "ANSWERS " in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
    told = json.loads(done.stdout.rpartition("ANSWERS ")[2])
    is_socket = re.compile("SOCKET|FOREIGN").match
    answers = {user: {route: told[user][route] for route in told[user] if not is_socket(route)} for user in told}
    _check_sockets({user: {route: told[user][route] for route in told[user] if is_socket(route)} for user in told})
    of_the_dag = [route for route in answers[""] if "{dag_id}" in route]
    assert len(of_the_dag) > 3
    assert set(answers[""].values()) == {401}
    for user in ("nobody", "stranger"):
        assert {answers[user][route] for route in of_the_dag} == {403}, user
    # Where FAB has a role for those who have not logged in, they may what it may.
    assert {route: answers["public"][route] for route in of_the_dag} == {
        route: answers["clerk"][route] for route in of_the_dag
    }
    job = "/api/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/job"
    assert [answers[user][f"GET {job}"] for user in ("public", "clerk", "reader", "looker", "owner")] == [SEEN] * 5
    # Who may not read logs gets nothing of what a job has printed or written.
    for route in of_the_dag:
        if route not in (f"GET {job}", f"GET {job}/events"):
            assert answers["clerk"][route] == 403, route
    for what in ("cancel", "checkpoint"):
        assert [answers[user][f"POST {job}/{what}"] for user in ("reader", "looker", "owner")] == [403, 403, SEEN]


def _check_sockets(answers: dict[str, dict[str, int]]) -> None:
    of_job = "/api/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/job/live"
    opened = {user: answers[user][f"SOCKET {of_job}"] for user in answers}
    may = dict.fromkeys(("public", "clerk", "reader", "looker", "owner"), 101)
    assert opened == {"": 401, "nobody": 403, "stranger": 403, **may}
    # It tells of those jobs alone that the user may see.
    opened = {user: answers[user]["SOCKET /api/jobs/live"] for user in answers}
    assert opened == {**dict.fromkeys(answers, 101), "": 401}
    assert {answers[user][route] for user in answers for route in answers[user] if "FOREIGN" in route} == {403}
