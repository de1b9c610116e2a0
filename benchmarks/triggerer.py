"""A triggerer in small: a process with one event loop, and a task in it for each trigger, as in Airflow's own."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import greenback
from airflow.triggers.base import BaseTrigger

from benchmarks.measure import Bench

_STOP_PATIENCE_S = 20.0
# For the next event.
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Fired:
    """
    What a trigger has said.

    :param job_id: the job it waited for.
    :param at: when, in seconds since the epoch.
    """

    job_id: str
    at: float
    payload: dict[str, Any]


class Triggerer:
    """The process, as a context manager. Airflow's own has besides a database and a log for each task."""

    def __init__(self, cluster: Bench) -> None:
        self.fired: queue.Queue[Fired] = queue.Queue()
        self._said: dict[str, Fired] = {}
        self._log = (cluster.folder / "triggerer.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.triggerer"],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **cluster.connections(), "AIRFLOW_HOME": str(cluster.folder / "airflow")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The process to measure."""
        return self._process.pid

    def run(self, triggers: Iterable[BaseTrigger]) -> None:
        """Start triggers, as many as there are, at once."""
        assert self._process.stdin is not None
        for trigger in triggers:
            classpath, arguments = trigger.serialize()
            self._process.stdin.write(json.dumps([classpath, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def wait_for(self, job_ids: Iterable[str]) -> dict[str, Fired]:
        """Return what the triggers of these jobs say, once all have."""
        wanted = set(job_ids)
        while not wanted <= self._said.keys():
            fired = self.fired.get(timeout=_PATIENCE_S)
            self._said[fired.job_id] = fired
        return {job_id: self._said[job_id] for job_id in wanted}

    def _listen(self, out: IO[bytes]) -> None:
        for line in out:
            self.fired.put(Fired(**json.loads(line)))

    def __enter__(self) -> Triggerer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


async def _serve(out: IO[str]) -> None:
    """Run the triggers that come on stdin until it ends."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    tasks = set()
    async for line in commands:
        classpath, arguments = json.loads(line)
        module, _, name = classpath.rpartition(".")
        trigger = getattr(importlib.import_module(module), name)(**arguments)
        job_id = arguments["job"]["job_id"] if "job" in arguments else arguments["job_id"]
        tasks.add(asyncio.create_task(_run(trigger, job_id, out)))


async def _run(trigger: BaseTrigger, job_id: str, out: IO[str]) -> None:
    await greenback.ensure_portal()
    async for event in trigger.run():
        print(json.dumps({"job_id": job_id, "at": time.time(), "payload": event.payload}), file=out, flush=True)


if __name__ == "__main__":
    # What triggers log goes where errors go.
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(_serve(events))
