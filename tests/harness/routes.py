"""The routes of this package's part of the API server, from its own list, so that a new one cannot be forgotten."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route
from starlette.testclient import WebSocketDenialResponse

from airflow_provider_gpu_cluster.plugins.api.access import readable_dags
from airflow_provider_gpu_cluster.plugins.app import app

# They tell nothing of any job, cluster or user: the pages' own files, what the routes are, and where the page is now.
OPEN = {"/ui", "/api/openapi.json", "/api/docs", "/job"}
# The token of a scraper, or the right to read connections: tests/plugins/test_metrics_page.py.
OF_THEIR_OWN = {"/metrics"}
PARTS = {"dag_id": "mine", "run_id": "r", "task_id": "t", "conn_id": "lab"}
SOCKET = "SOCKET"
# A socket has no request that such a dependency could be given: tests/plugins/live/test_opening.py.
FILTERING_SOCKETS = {"/api/jobs/live"}


def paths() -> Iterator[tuple[str, str]]:
    """Yield method and path of each route."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            yield from ((method, _of_files(route.path)) for method in sorted(route.methods))
        elif isinstance(route, APIWebSocketRoute):
            yield SOCKET, route.path
        elif isinstance(route, (Mount, Route)):
            yield "GET", _of_files(route.path)


def _of_files(path: str) -> str:
    return re.sub(r"^/ui/.*", "/ui", path)


def closed(*, sockets: bool) -> list[tuple[str, str]]:
    """Return those that are not for everybody."""
    return [
        (method, path) for method, path in paths() if path not in OPEN | OF_THEIR_OWN and (method == SOCKET) == sockets
    ]


def address(path: str) -> str:
    """Return the address of a path, about a DAG ``mine``."""
    return "/gpu-cluster" + re.sub(r"{(\w+)(:path)?}", lambda found: PARTS.get(found.group(1), "x"), path)


def ask(client: TestClient, method: str, path: str, base: str = "") -> int:
    """Return the status with which a request is answered."""
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
    content = "{}" if method == "POST" else None
    status: int = client.request(method, f"{base}{address(path)}", headers=headers, content=content).status_code
    return status


def open_socket(client: TestClient, path: str, headers: Mapping[str, str]) -> int:
    """Return the status with which the opening of a socket is answered; 101 if it opens."""
    # The client does not wait for the server's end.
    with contextlib.suppress(CancelledError):
        try:
            with client.websocket_connect(path, headers=dict(headers)):
                pass
        except WebSocketDenialResponse as denial:
            return int(denial.status_code)
    return 101


def filters(path: str) -> bool:
    """Return whether a route tells of those DAGs only that the user may read, of which there may be none."""

    def calls(dependant: Dependant) -> Iterator[object]:
        yield dependant.call
        for one in dependant.dependencies:
            yield from calls(one)

    return path in FILTERING_SOCKETS or any(
        isinstance(route, (APIRoute, APIWebSocketRoute))
        and route.path == path
        and readable_dags in calls(route.dependant)
        for route in app.routes
    )
