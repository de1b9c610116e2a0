"""
The one process that serves a root's waiting jobs, alive only while some wait.

Every quarter of a second it looks who is next, leases GPUs, and starts a supervisor to which the leases pass as open
files. Environments are built before a job takes its place among those that want GPUs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

from . import environments, processes, protocol, records
from .allocator import Allocator, Grant
from .errors import Refused
from .line import Line
from .schedule import Ticket, Wait
from .store import Attempt, write_text

_TICK_S = 0.25
_RECHECK_S = 10.0
_BUILDS_AT_ONCE = 2
_STARTS = 3


class _Waiting(NamedTuple):
    name: str
    attempt: Attempt
    request: dict[str, Any]
    ticket: Ticket


class Dispatcher:
    """
    Serves one line until nobody waits.

    :param lock: the line's lock, held as an open file.
    """

    def __init__(self, line: Line, lock: int) -> None:
        self._line = line
        self._lock = lock
        self._allocator = Allocator(line.open_leases(), line.virtual_gpus, line.owner())
        self._waiting: dict[str, _Waiting] = {}
        self._starting: dict[str, subprocess.Popen[bytes]] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._failed_starts: dict[str, int] = {}
        self._builds: dict[str, subprocess.Popen[bytes]] = {}
        self._built: dict[str, dict[str, Any]] = {}
        self._waits: dict[str, Wait] = {}
        self._checked = time.monotonic()

    def run(self) -> None:
        """Serve until nobody waits."""
        os.set_inheritable(self._lock, False)
        try:
            while self._tick():
                time.sleep(_TICK_S)
        finally:
            self._allocator.close()
            os.close(self._lock)

    def _tick(self) -> bool:
        """Look once; False when nobody waits."""
        self._read_line()
        self._check_starts()
        ready = [
            waiting for name, waiting in self._waiting.items() if name not in self._starting and self._ready(waiting)
        ]
        waits: dict[str, Wait] = {}
        try:
            grants, waits = self._allocator.grant([waiting.ticket for waiting in ready])
        except Refused as refusal:
            grants = {}
            waits = {waiting.ticket.job_id: Wait(0, refusal.message) for waiting in ready}
        for waiting in ready:
            if waiting.ticket.job_id in grants:
                self._start(waiting, grants[waiting.ticket.job_id])
        self._tell(waits)
        return bool(self._waiting or self._starting)

    def _read_line(self) -> None:
        names = self._line.entries()
        recheck = time.monotonic() - self._checked > _RECHECK_S
        for name in set(self._waiting) - set(names):
            del self._waiting[name]
        for name in names:
            if name not in self._waiting:
                self._admit(name)
            elif recheck and name not in self._starting and self._is_over(self._waiting[name].attempt):
                self._line.remove(name)
        if recheck:
            self._checked = time.monotonic()

    def _admit(self, name: str) -> None:
        attempt = self._line.read(name)
        if attempt is None:
            return
        if self._is_over(attempt):
            self._line.remove(name)
            return
        request = attempt.request()
        ticket = self._line.ticket(attempt, request, self._allocator.name)
        self._waiting[name] = _Waiting(name, attempt, request, ticket)

    def _is_over(self, attempt: Attempt) -> bool:
        """Tell whether an attempt needs no start: it has one, is cancelled, or its directory was deleted."""
        return not os.path.exists(attempt.at("request.json")) or os.path.exists(attempt.at("claim.json"))

    # -- environments --------------------------------------------------------------------------------------------

    def _ready(self, waiting: _Waiting) -> bool:
        """Tell whether a job can use GPUs as soon as it has them."""
        parts = waiting.request.get("environment")
        if not parts or os.path.exists(waiting.attempt.at("environment.json")):
            return True
        key = environments.group(parts)
        if key in self._built:
            if environments.is_built(self._built[key]):
                records.write_json(waiting.attempt.at("environment.json"), self._built[key])
                waiting.attempt.event("environment_ready", **self._built[key])
                return True
            del self._built[key]
        if key not in self._builds:
            if len(self._builds) < _BUILDS_AT_ONCE:
                self._builds[key] = self._build(waiting)
        elif self._builds[key].poll() is not None:
            self._end_build(key, self._builds.pop(key))
        return False

    def _build(self, waiting: _Waiting) -> subprocess.Popen[bytes]:
        waiting.attempt.event("environment_building")
        return subprocess.Popen(
            [sys.executable, "-I", "-S", waiting.request["program"], "build-environment", waiting.attempt.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def _end_build(self, key: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read().decode("utf-8", "replace")
        try:
            result = json.loads(output)
        except ValueError:
            result = {"error": f"building the Python environment ended with exit code {process.returncode}"}
        if "error" not in result:
            self._built[key] = result
            return
        for waiting in list(self._waiting.values()):
            parts = waiting.request.get("environment")
            if parts and environments.group(parts) == key:
                with contextlib.suppress(OSError):
                    write_text(waiting.attempt.job.at("logs", "environment.log"), result["error"] + "\n")
                self._give_up(waiting, "its Python environment could not be built: {}".format(result["error"]))

    # -- starts --------------------------------------------------------------------------------------------------

    def _start(self, waiting: _Waiting, grant: Grant) -> None:
        """Start the supervisor and pass it the leases."""
        lease = {
            "fds": grant.fds,
            "gpus": [{"key": gpu.key, "index": gpu.number} for gpu in grant.gpus],
            "leased_at": records.now(),
        }
        try:
            with open(waiting.attempt.at("supervisor.log"), "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", waiting.request["program"], "supervise", waiting.attempt.path],
                    cwd="/",
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=grant.fds,
                )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(lease).encode())
            self._starting[waiting.name] = process
        except OSError as error:
            self._give_up(waiting, f"its supervisor could not be started: {error}")
        finally:
            for fd in grant.fds:
                os.close(fd)

    def _check_starts(self) -> None:
        """Take those that have started out of the line; start those again whose supervisor died before it began."""
        self._running = [process for process in self._running if process.poll() is None]
        for name, process in list(self._starting.items()):
            waiting = self._waiting.get(name)
            if waiting is None or self._is_over(waiting.attempt):
                self._line.remove(name)
                self._waiting.pop(name, None)
                self._running.append(process)
                del self._starting[name]
            elif process.poll() is not None:
                del self._starting[name]
                self._failed_starts[name] = self._failed_starts.get(name, 0) + 1
                if self._failed_starts[name] >= _STARTS:
                    self._give_up(
                        waiting,
                        "its supervisor ended before it could begin, {} times; see {}".format(
                            _STARTS, waiting.attempt.at("supervisor.log")
                        ),
                    )

    def _give_up(self, waiting: _Waiting, message: str) -> None:
        if waiting.attempt.claim(dict(processes.identity(), by="dispatcher", at=records.now())):
            waiting.attempt.finish(
                protocol.FAILED,
                protocol.LAUNCH_FAILED,
                message,
                submitted_at=waiting.request["requested_at"],
            )
        self._line.remove(waiting.name)
        self._waiting.pop(waiting.name, None)

    def _tell(self, waits: dict[str, Wait]) -> None:
        """Write down why jobs wait, for whoever asks."""
        building = {w.ticket.job_id for w in self._waiting.values()} - set(waits) - self._names_starting()
        told = dict(waits)
        told.update({job_id: Wait(0, "its Python environment is being built") for job_id in building})
        if told != self._waits:
            self._waits = told
            with contextlib.suppress(OSError):
                records.write_json(self._line.waits_path, {job_id: list(wait) for job_id, wait in told.items()})

    def _names_starting(self) -> set[str]:
        return {self._waiting[name].ticket.job_id for name in self._starting if name in self._waiting}


def dispatch(path: str, lock: int, program: str) -> None:
    """Serve the line at ``path``, and see to it that nobody who came at the last moment is left waiting."""
    line = Line.at_path(path)
    try:
        Dispatcher(line, lock).run()
    except Refused as refusal:
        print(records.now(), refusal.message, file=sys.stderr)
        with contextlib.suppress(OSError):
            told: list[str] = line.entries()
            attempts = [line.read(name) for name in told]
            waits = {attempt.job.job_id: [0, refusal.message] for attempt in attempts if attempt is not None}
            records.write_json(line.waits_path, waits)
        return
    line.ensure_dispatcher(program)
