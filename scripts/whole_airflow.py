"""A whole Airflow for a while: scheduler, triggerer, DAG processor and API server on SQLite, in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.linux.processes import kill_with_environment

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_START_TIMEOUT_S = 180
_STOP_PATIENCE_S = 10


class AirflowFailed(Exception):
    """Airflow did not start, died, or did not answer as expected."""


class WholeAirflow:
    """
    A whole Airflow, as a context manager. Leaving it ends every process that it started.

    Nobody needs to log in: it listens on loopback only.

    :param dags: folder of the DAGs.
    :param environ: further environment variables, such as connections.
    :param log: file that gets what its components print.
    :param port: port of the API server and UI; the next free one is taken instead when it is in use.
    """

    def __init__(self, dags: Path, environ: Mapping[str, str], log: Path, port: int = 8080) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="airflow-home-"))
        self.logs = self.home / "logs"
        self.log = log
        self.url = f"http://127.0.0.1:{_free_port(port)}"
        self._environ = {**_without_airflow(os.environ), **self._settings(dags), **environ}
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""

    def _settings(self, dags: Path) -> dict[str, str]:
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # The default keeps 32 idle workers in memory.
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port(8793)),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port(8893)),
            "AIRFLOW__TRACES__OTEL_ON": "False",
            # 5 s by default, which an API server that has just begun may need on a busy machine.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
            # The end of a task is noticed as much as this late; 5 s by default.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def __enter__(self) -> WholeAirflow:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """
        Start it, and return when its API answers.

        :raises AirflowFailed: it does not start.
        """
        self.log.write_bytes(b"")
        self.start_component("db migrate")
        self._components["db migrate"].wait()
        self._check()
        del self._components["db migrate"]
        for name in COMPONENTS:
            self.start_component(name)
        with self.waiting("Airflow's API", _START_TIMEOUT_S) as attempts:
            for _ in attempts:
                with contextlib.suppress(OSError):
                    self._token = self._ask("GET", "/auth/token")["access_token"]
                    return

    def start_component(self, name: str) -> None:
        """Start one of :data:`COMPONENTS`, such as one that was killed."""
        with self.log.open("ab") as log:
            self._components[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *name.split()],
                env=self._environ,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop_component(self, name: str) -> None:
        """Have one of :data:`COMPONENTS` end as it does when a service manager stops it."""
        process = self._components.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_PATIENCE_S * 3)

    def kill_component(self, name: str) -> None:
        """End one of :data:`COMPONENTS` with SIGKILL, and all processes that it has started."""
        process = self._components.pop(name)
        for pid in _in_session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End every process that it started, and remove its folder."""
        for process in self._components.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_PATIENCE_S
        for process in self._components.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        # Some of what they started has left their group; it is known by its session or its environment.
        for process in self._components.values():
            for pid in _in_session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        self._components.clear()
        kill_with_environment(f"AIRFLOW_HOME={self.home}", _STOP_PATIENCE_S)
        shutil.rmtree(self.home, ignore_errors=True)

    @contextlib.contextmanager
    def waiting(self, what: str, timeout_s: float) -> Iterator[Iterator[int]]:
        """
        Give an iterator that ticks until it is left, or until it has taken too long.

        :raises AirflowFailed: it took too long, or a component died.
        """

        def ticks() -> Iterator[int]:
            deadline = time.monotonic() + timeout_s
            number = 0
            while time.monotonic() < deadline:
                yield number
                self._check()
                time.sleep(0.5)
                number += 1
            raise AirflowFailed(f"waited {timeout_s:.0f} s for {what}; see {self.log}")

        yield ticks()

    def _check(self) -> None:
        for name, process in self._components.items():
            if process.poll() not in (None, 0) or (process.returncode == 0 and name in COMPONENTS):
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise AirflowFailed(
                    f"`airflow {name}` ended with exit code {process.returncode}; the end of {self.log}:\n{tail}"
                )

    def get(self, path: str) -> Any:
        """
        Ask the REST API.

        :param path: what comes after ``/api/v2``.
        :raises AirflowFailed: it answers with an error.
        """
        return self._call("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send something to the REST API; see :meth:`get`."""
        return self._call("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change something through the REST API; see :meth:`get`."""
        return self._call("PATCH", path, body)

    def page(self, path: str) -> str:
        """Return a page of the web server, as who is logged in sees it."""
        request = urllib.request.Request(self.url + path, headers={"Cookie": f"_token={self._token}"})
        with _opener.open(request, timeout=30) as response:
            return str(response.read().decode())

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            return self._ask(method, f"/api/v2{path}", body)
        except urllib.error.HTTPError as error:
            raise AirflowFailed(f"{method} {path}: {error} {error.read().decode(errors='replace')}") from error
        except OSError as error:
            self._check()
            raise AirflowFailed(f"{method} {path}: {error}") from error

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        with _opener.open(request, timeout=30) as response:
            return json.load(response)

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run of a DAG, once the DAG is there."""
        with self.waiting(f"the DAG {dag_id}", 60) as attempts:
            for _ in attempts:
                if any(dag["dag_id"] == dag_id for dag in self.get("/dags?limit=100")["dags"]):
                    break
                self._raise_import_errors()
        self.post(f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})})

    def _raise_import_errors(self) -> None:
        for error in self.get("/importErrors")["import_errors"]:
            raise AirflowFailed(f"{error['filename']} cannot be imported:\n{error['stack_trace']}")

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        run = self.get(f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}")
        return str(run["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run."""
        answer = self.get(f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances")
        return list(answer["task_instances"])


# Whatever proxy is set, it does not lead to this machine's own loopback.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _without_airflow(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out the settings of another Airflow, and the wish not to keep compiled modules: it costs many seconds."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW_")) and name != "PYTHONDONTWRITEBYTECODE"
    }


def _free_port(wanted: int) -> int:
    for port in (*range(wanted, wanted + 50), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise AirflowFailed("no port is free")


def _in_session(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(folder.name))
    return found
