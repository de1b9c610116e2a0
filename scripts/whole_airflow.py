"""A whole Airflow for a while: scheduler, triggerer, DAG processor and API server on SQLite, in a temporary folder."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
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
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

import jwt
import tenacity

from airflow_provider_gpu_cluster.gpu_run.linux.processes import kill_with_environment

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_START_TIMEOUT_S = 900
_STOP_PATIENCE_S = 10
_GRACEFUL_STOP_S = 300
_ANSWER_TIMEOUT_S = 60
_DATABASE_TIMEOUT_S = 60
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10
_FIRST_PAUSE_S = 0.5
_API_PATIENCE_S = 600
"""An API server on a busy machine leaves questions unanswered for minutes, and answers the next ones."""
# Below the ports that the kernel gives to outgoing connections, and away from those that Airflow has by default.
_PORTS = range(20000, 32000)
_STARTS = 3
# SQLite that is locked for too long is an Internal Server Error.
_PASSING_CODES = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_CANNOT_BIND = "address already in use"


class AirflowFailed(Exception):
    """Airflow did not start, died, or did not answer as expected."""


class ApiRefusal(AirflowFailed):
    """The REST API answered with an error that does not pass."""

    def __init__(self, request: str, code: int, text: str) -> None:
        super().__init__(f"{request}: HTTP {code} {text}")
        self.code = code


class PortTaken(AirflowFailed):
    """Another program began to listen on the port of the API server before Airflow did."""


class _PassingFault(Exception):
    """The API server did not answer, or not properly; it may do so next time."""


class WholeAirflow:
    """
    A whole Airflow, as a context manager. Leaving it ends every process that it started.

    Nobody needs to log in: it listens on loopback only, on ports that nothing else uses.

    :param dags: folder of the DAGs.
    :param environ: further environment variables, such as connections.
    :param log: file that gets what its components print.
    :param database: an SQLite database with Airflow's tables, to begin with a copy of; by default they are made anew.
    """

    def __init__(self, dags: Path, environ: Mapping[str, str], log: Path, database: Path | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="airflow-home-"))
        self.logs = self.home / "logs"
        self.log = log
        self.url = ""
        self._database = database
        self._dags = dags
        self._further = environ
        self._jwt_secret = secrets.token_hex(64)
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""
        self._choose_ports()

    def _choose_ports(self) -> None:
        api, worker_logs, trigger_logs = _free_ports(3)
        self.url = f"http://127.0.0.1:{api}"
        settings = self._settings(self._dags, worker_logs, trigger_logs)
        self._environ = {**_without_airflow(os.environ), **settings, **self._further}

    def _settings(self, dags: Path, worker_logs: int, trigger_logs: int) -> dict[str, str]:
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": self._jwt_secret,
            # On a busy machine the import of Airflow alone may take longer than the 30 s of the default.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # The default keeps 32 idle workers in memory.
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # For 5 s by default, one that writes waits for another; on a busy machine, components end of that.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout={_DATABASE_TIMEOUT_S}",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__TRACES__OTEL_ON": "False",
            # 5 s by default, which an API server that has just begun may need on a busy machine.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
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
        if self._database is None:
            self._migrate()
        else:
            shutil.copy(self._database, self.home / "airflow.db")
        for start in range(1, _STARTS + 1):
            try:
                self._start_components()
                return
            except PortTaken:
                if start == _STARTS:
                    raise
                self._end_components()
                self._choose_ports()

    def _migrate(self) -> None:
        self.start_component("db migrate")
        self._components["db migrate"].wait()
        self.check()
        del self._components["db migrate"]

    def _start_components(self) -> None:
        printed = self.log.stat().st_size
        for name in COMPONENTS:
            self.start_component(name)
        try:
            with self.waiting("Airflow's API", _START_TIMEOUT_S) as attempts:
                for _ in attempts:
                    with contextlib.suppress(_PassingFault):
                        self._token = self._own_token()
                        return
        except AirflowFailed as error:
            if _CANNOT_BIND in self.log.read_bytes()[printed:].decode(errors="replace").lower():
                raise PortTaken(f"{self.url} is used by another program; see {self.log}") from error
            raise

    def _own_token(self) -> str:
        """Ask for a token, and see from its signature that it is this Airflow that answers, and not another one."""
        try:
            token = str(self._ask("GET", "/auth/token")["access_token"])
            jwt.decode(token, self._jwt_secret, algorithms=["HS512"], options={"verify_aud": False})
        except (urllib.error.HTTPError, jwt.InvalidTokenError, LookupError, TypeError) as error:
            raise PortTaken(f"another program answers at {self.url}: {error}; see {self.log}") from error
        return token

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
        process.wait(_GRACEFUL_STOP_S)

    def kill_component(self, name: str) -> None:
        """End one of :data:`COMPONENTS` with SIGKILL, and all processes that it has started."""
        process = self._components.pop(name)
        for pid in _in_session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def freeze_component(self, name: str) -> None:
        """Stop the clocks of one of :data:`COMPONENTS`: it keeps its connections and answers nobody."""
        self._signal_session(name, signal.SIGSTOP)

    def thaw_component(self, name: str) -> None:
        """Let a frozen component go on."""
        self._signal_session(name, signal.SIGCONT)

    def _signal_session(self, name: str, number: signal.Signals) -> None:
        for pid in _in_session(self._components[name].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End every process that it started, and remove its folder."""
        self._end_components()
        shutil.rmtree(self.home, ignore_errors=True)

    def _end_components(self) -> None:
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

    @contextlib.contextmanager
    def waiting(self, what: str, timeout_s: float) -> Iterator[Iterator[int]]:
        """
        Give an iterator that ticks until it is left, or until it has taken too long.

        :raises AirflowFailed: it took too long, or a component died.
        """

        def ticks() -> Iterator[int]:
            deadline = time.monotonic() + timeout_s
            number = 0
            while (asked := time.monotonic()) < deadline:
                yield number
                self.check()
                # What takes long because the machine is busy, and keeps it busy, is asked less often.
                time.sleep(min(max(_PAUSE_S, 3 * (time.monotonic() - asked)), _LONGEST_PAUSE_S))
                number += 1
            raise AirflowFailed(f"waited {timeout_s:.0f} s for {what}; see {self.log}")

        yield ticks()

    def check(self) -> None:
        """
        See that every component lives.

        :raises AirflowFailed: one has died.
        """
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
        return str(self._attempts()(_read, request).decode())

    def token(self, role: str | None) -> str:
        """Return a token of a user with a role of the simple auth manager, such as ``VIEWER``; None is no role."""
        claims = jwt.decode(self._token, self._jwt_secret, algorithms=["HS512"], options={"verify_aud": False})
        claims |= {"sub": (role or "nobody").lower(), "role": role, "jti": secrets.token_hex()}
        return jwt.encode(claims, self._jwt_secret, algorithm="HS512")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            return self._attempts()(self._ask, method, f"/api/v2{path}", body)
        except urllib.error.HTTPError as error:
            raise ApiRefusal(f"{method} {path}", error.code, error.read().decode(errors="replace")) from error
        except _PassingFault as error:
            raise AirflowFailed(
                f"{method} {path}: no proper answer for {_API_PATIENCE_S} s: {error}; see {self.log}"
            ) from error

    def _attempts(self) -> tenacity.Retrying:
        """Ask until there is an answer, as long as every component lives. No request of ours does harm twice."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingFault),
            stop=tenacity.stop_after_delay(_API_PATIENCE_S),
            wait=tenacity.wait_exponential(multiplier=_FIRST_PAUSE_S, max=10),
            before_sleep=lambda _: self.check(),
            reraise=True,
        )

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            return json.loads(_read(request))
        except json.JSONDecodeError as error:
            raise _PassingFault(str(error)) from error

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run of a DAG, once the DAG is there. A run that is there already is left as it is."""
        with self.waiting(f"the DAG {dag_id}", _START_TIMEOUT_S) as attempts:
            for _ in attempts:
                try:
                    self.get(f"/dags/{dag_id}")
                    break
                except ApiRefusal as refusal:
                    if refusal.code != HTTPStatus.NOT_FOUND:
                        raise
                self._raise_import_errors()
        try:
            self.post(f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})})
        except ApiRefusal as refusal:
            if refusal.code != HTTPStatus.CONFLICT:  # the answer to an earlier request was lost
                raise

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


def _read(request: urllib.request.Request) -> bytes:
    """Return what a server answers."""
    try:
        with _opener.open(request, timeout=_ANSWER_TIMEOUT_S) as response:
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        if error.code in _PASSING_CODES:
            raise _PassingFault(f"{error} {error.read().decode(errors='replace')[:500]}") from error
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _PassingFault(str(error) or type(error).__name__) from error


def _without_airflow(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out the settings of another Airflow, and the wish not to keep compiled modules: it costs many seconds."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW_")) and name != "PYTHONDONTWRITEBYTECODE"
    }


def _free_ports(count: int) -> list[int]:
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
            if len(free) == count:
                return free
    raise AirflowFailed(f"no port between {_PORTS.start} and {_PORTS.stop} is free")


def _in_session(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(folder.name))
    return found
