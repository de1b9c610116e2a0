"""This package's part of the API server, in a real uvicorn behind Airflow's login, and pages that are open there."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from airflow_provider_gpu_cluster.plugins.live import asking, clusters, hub, live_job, page
from airflow_provider_gpu_cluster.watch import loop
from tests.harness.airflow_database import make_database
from tests.harness.api_server import EVERYTHING, Rights, api_server, token
from tests.harness.patience import PATIENCE_S
from tests.servers.proxy import CutProxy

Message = dict[str, Any]
Change = Callable[..., None]


@pytest.fixture(autouse=True)
def own_clusters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test meet a connection of another, and leave none behind."""
    monkeypatch.setattr(clusters, "_clusters", {})
    monkeypatch.setattr(asking, "_outages", {})
    monkeypatch.setattr(hub, "_hubs", {})
    yield
    monkeypatch.setattr(loop, "LINGER_S", 0.0)
    for one in clusters._clusters.values():
        one.watcher.reconnect()
    for thread in threading.enumerate():
        if thread.name.startswith("watcher of "):
            thread.join(PATIENCE_S)


@pytest.fixture
def change(gpu_cluster_conn: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Change:
    """Return a function that changes the Airflow connection."""

    def change(**fields: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps({**gpu_cluster_conn, **fields}))

    return change


@pytest.fixture
def proxied(change: Change, gpu_cluster_conn: dict[str, Any], cut_proxy: CutProxy) -> CutProxy:
    """Return the proxy that the Airflow connection leads through."""
    change(port=cut_proxy.port)
    return cut_proxy


@pytest.fixture(scope="session")
def database() -> None:
    make_database()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little time pass between looks at the database, and before a job is followed no longer."""
    monkeypatch.setattr(page, "FIND_EVERY_S", 0.3)
    monkeypatch.setattr(page, "CHECK_EVERY_S", 0.6)
    monkeypatch.setattr(hub, "LINGER_S", 0.2)
    monkeypatch.setattr(live_job, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(loop, "SHORTEST_PAUSE_S", 0.05)
    monkeypatch.setattr(loop, "LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def rights() -> Rights:
    """What the user may do; a test may take something away."""
    return set(EVERYTHING)


@pytest.fixture
def client(database: None, monkeypatch: pytest.MonkeyPatch, rights: Rights) -> Iterator[TestClient]:
    """Return a client that is not logged in."""
    with api_server(monkeypatch, rights) as client:
        yield client


@pytest.fixture
def server(client: TestClient) -> Iterator[Server]:
    """Return the same application, served by uvicorn on a port."""
    server = Server(client.app)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Server:
    """A uvicorn in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._pages = contextlib.ExitStack()

    def start(self, port: int = 0) -> None:
        config = uvicorn.Config(self._app, port=port, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            self._thread.join(0.01)
        self.port: int = self._uvicorn.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._pages.close()
        self.end()

    def end(self) -> None:
        """End the server, whatever is still open."""
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE_S)

    def open(self, path: str, *, user: str = "ada", headers: dict[str, str] | None = None, **asks: Any) -> Page:
        """Open a socket, and ask for something."""
        own = {"Cookie": f"_token={token(user)}", "Origin": f"http://127.0.0.1:{self.port}"}
        socket = self._pages.enter_context(
            connect(
                f"ws://127.0.0.1:{self.port}{path}",
                additional_headers=own if headers is None else headers,
                max_size=1 << 24,
                open_timeout=PATIENCE_S,
            )
        )
        page = Page(socket)
        if asks:
            socket.send(json.dumps(asks))
        return page

    @contextlib.contextmanager
    def events(self, path: str, **headers: str) -> Iterator[Iterator[Message]]:
        """Open a stream of server-sent events."""
        own = {"Cookie": f"_token={token()}", **headers}
        with (
            httpx.Client(timeout=PATIENCE_S) as http,
            http.stream("GET", f"http://127.0.0.1:{self.port}{path}", headers=own) as response,
        ):
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))


class Page:
    """An open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[Message] = []
        self._left: list[Message] = []
        self.code: int | None = None
        self._messages: queue.Queue[Message | None] = queue.Queue()
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            for text in self.socket:
                self._messages.put(json.loads(text))
        except ConnectionClosed:
            pass
        self.code = self.socket.close_code
        self._messages.put(None)

    def until(self, kind: str, check: Callable[[Message], bool] = lambda message: True) -> Message:
        """Return the next message of a kind, of those that were not returned yet, for which something is true."""
        for message in self._left:
            if message["type"] == kind and check(message):
                self._left.remove(message)
                return message
        while True:
            try:
                next_one = self._messages.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise AssertionError(f"there is no {kind}, after {self.seen}") from None
            assert next_one is not None, f"it was closed with {self.code}, after {self.seen}"
            self.seen.append(next_one)
            if next_one["type"] == kind and check(next_one):
                return next_one
            self._left.append(next_one)

    def until_state(self, state: str) -> Message:
        job: Message = self.until("job", lambda message: message["job"]["state"] == state)["job"]
        return job

    def until_line(self, line: str) -> None:
        self.until("log", lambda message: line in message["lines"])

    def until_closed(self) -> int | None:
        """Return the code with which it is closed."""
        while (message := self._messages.get(timeout=PATIENCE_S)) is not None:
            self.seen.append(message)
        return self.code

    def close(self) -> None:
        self.socket.close()
