"""A host with GPUs, driven without SSH: the program's own functions, and its real processes."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.engines.host.root_queue import RootQueue
from airflow_provider_gpu_cluster.gpu_run.jobs import status, submission
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Submit
from airflow_provider_gpu_cluster.gpu_run.protocol.settings import Settings
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt, JobDirectory, Root
from tests.harness.patience import PATIENCE_S
from tests.harness.unpacked_program import provide_unpacked

NOBODY = 65534
_numbers = itertools.count(1)


class Host:
    """
    One root of one user on this host.

    :param folder: holds the root, and the leases unless they are elsewhere.
    """

    def __init__(self, folder: Path, *, name: str = "ml-jobs", virtual_gpus: int | None = 4, **settings: Any) -> None:
        self.root = Root(str(folder / name))
        self.lease_dir: str = settings.get("lease_dir", str(folder / "leases"))
        usual = {"virtual_gpus": virtual_gpus, "lease_dir": self.lease_dir, "python": None}
        self.settings = cast(Settings, {**usual, **settings})
        program = build_program()
        self.program = str(Path(self.root.own) / program.name)
        if not Path(self.program).exists():
            provide_unpacked(Path(self.root.path))
            Path(self.program).write_bytes(program.content)

    @property
    def engine(self) -> HostEngine:
        return HostEngine(self.root, self.settings, self.program)

    @property
    def queue(self) -> RootQueue:
        return RootQueue(self.root, self.settings)

    def submit(self, command: str, *, code: dict[str, str] | None = None, **more: Any) -> str:
        """Launch a job that runs shell text, and return its id; see :meth:`request`."""
        request = self.request(command, **more)
        job = self.job(request["job_id"])
        job.create()
        for name, text in (code or {}).items():
            path = Path(job.at("code", name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        submission.submit(self.root, self.engine, request)
        return job.job_id

    def request(self, command: str, *, job_id: str | None = None, **more: Any) -> Submit:
        """Return a request to launch a job that is staged. What is no part of the request is the spec's."""
        request = {
            "job_id": job_id or f"job-{next(_numbers)}",
            "inputs": None,
            "env": more.pop("env", {}),
            "run_script": f"#!/bin/bash\n{command}\n",
            "request_key": more.pop("request_key", "1"),
            "generation": "0",
            "record": {"dag_id": "dag"},
            "settings": self.settings,
            "program": self.program,
            "umask": 0o022,
            "context": {},
            "spec": {"gpus": 1, "priority": "normal", "grace_s": 1.0, "setup": "", **more},
        }
        return cast(Submit, request)

    def job(self, job_id: str) -> JobDirectory:
        return self.root.job(job_id)

    def attempt(self, job_id: str) -> Attempt:
        return self.job(job_id).attempts()[-1]

    def status(self, job_id: str) -> dict[str, Any]:
        return dict(status.statuses(self.root, self.engine, [job_id], 0)[0])

    def wait(self, *job_ids: str, state: str | None = None, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """
        Return the last job's status when each of them is in that state; by default, when it and its supervisor have
        ended.
        """
        deadline = time.monotonic() + timeout_s
        for job_id in job_ids:
            while True:
                found = self.status(job_id)
                if found["state"] == state:
                    break
                if state is None and found["state"] in protocol.FINAL_STATES:
                    # The exit record comes first, and the markers in outputs after it.
                    if found.get("pid") and is_alive(found["pid"]):
                        continue
                    break
                assert time.monotonic() < deadline, f"{job_id} does not get there: {found}\n{self.told(job_id)}"
                assert found["state"] not in protocol.FINAL_STATES, f"{found}\n{self.told(job_id)}"
                time.sleep(0.04)
        return found

    def told(self, job_id: str) -> str:
        """Return what the job's supervisor and the dispatcher have printed."""
        paths = [Path(self.attempt(job_id).at("supervisor.log")), Path(self.queue.path, "dispatcher.log")]
        return "\n".join(path.read_text() for path in paths if path.exists())

    def run(self, command: str, **more: Any) -> dict[str, Any]:
        """Launch a job and return how it ended."""
        return self.wait(self.submit(command, **more))

    def log(self, job_id: str, name: str = "training.log") -> str:
        return Path(self.job(job_id).at("logs", name)).read_text()

    def dispatcher(self, waiting: str) -> int:
        """Return the id of the dispatcher by which a job waits."""
        deadline = time.monotonic() + PATIENCE_S
        while len(pids := self.processes("dispatch")) != 1 or not self.status(waiting).get("queue_place"):
            assert time.monotonic() < deadline, f"{pids} {self.status(waiting)}"
            time.sleep(0.02)
        return pids[0]

    def processes(self, verb: str) -> list[int]:
        """Return the ids of this root's live processes of that verb, such as ``dispatch`` and ``supervise``."""
        return processes_with(self.program, verb)


def processes_with(*words: str) -> list[int]:
    """Return the ids of live processes that have all these words on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if all(word.encode() in arguments for word in words):
                found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    return not processes.has_ended(pid)


def in_a_changed_system(host: Host, change: str, *words: str, verb: str, **request: Any) -> Any:
    """
    Return the answer of a verb of the program, which sees other mounts than everybody else. Only root can do this.

    :param change: shell text that changes the mounts.
    :param words: its arguments.
    """
    change = f'{change}; shift {len(words)}; exec "$@"'
    program = [sys.executable, "-I", "-S", host.program, verb]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", change, "sh", *words, *program],
        input=json.dumps({**request, "settings": host.settings}).encode() + b"\n",
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    reply = json.loads(done.stdout.splitlines()[-1])
    assert "ok" in reply, reply
    return reply["ok"]


def as_other_user(function: Callable[[], Any]) -> Any:
    """Return what a function returns that runs in a process of another user. Only root can do this."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        # pytest-xdist has threads; the child uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _answer_as_nobody(function, writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    value = pickle.loads(data)
    if isinstance(value, Exception):
        raise value
    return value


def _answer_as_nobody(function: Callable[[], Any], writes: int) -> NoReturn:
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            value = function()
        except Exception as error:
            value = RuntimeError(f"{type(error).__name__}: {error}")
        os.write(writes, pickle.dumps(value))
    finally:
        sys.stdout.flush()
        os._exit(0)
