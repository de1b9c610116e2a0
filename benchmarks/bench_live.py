"""
What open pages of a job cost: SSH connections, Slurm commands, the way of a log line to 20 pages, and memory of the API
server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from airflow.utils.db import initdb

from airflow_provider_gpu_cluster.jobs.status import JobState
from benchmarks.bench_slurm import shown, slurm_bench
from benchmarks.measure import CONN_ID, bench, line
from benchmarks.triggerer import Triggerer
from benchmarks.waiting_jobs import gpu_job_trigger
from tests.harness.api_server import EVERYTHING, api_server, launched, token
from tests.harness.jobs import submit, wait
from tests.servers.proxy import CutProxy

PAGES = 20
MANY_PAGES = 100
LINES = 100
# What a page asks for when it opens is over by then.
SETTLED_S = 20.0
COUNTED_S = 120.0
PRINT = f"for n in $(seq {LINES}); do date +at-%s.%N; sleep 0.2; done"


def main() -> None:
    initdb()
    _on_a_host()
    _on_slurm()


def _on_a_host() -> None:
    with bench(gpus=4) as cluster, cluster.cluster() as session:
        proxy = CutProxy((cluster.sshd.host, cluster.sshd.port))
        connection = json.loads(cluster.connections()[f"AIRFLOW_CONN_{CONN_ID.upper()}"])
        with _server() as port:
            go = Path(cluster.folder, "go")
            job = submit(session, f"while [ ! -e {go} ]; do sleep 0.1; done; {PRINT}", gpus=1)
            # The pages' connections are counted, and not that of this one.
            os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps({**connection, "port": proxy.port})
            address = launched(job.handle.to_json())("/live")
            first = _Viewers(port, [address], PAGES)
            connections, memory = proxy.connections, _rss()
            idle = _Viewers(port, [address], MANY_PAGES - PAGES)
            per_page = (_rss() - memory) / (MANY_PAGES - PAGES)
            idle.end()
            go.touch()
            wait(session, job.handle.job_id, JobState.SUCCEEDED)
            delays = first.end()
            print(
                f"{PAGES} pages, {len(delays)} lines told; SSH connections: {connections}, and no command but the watch"
            )
            line("from a job's line of log to a page", delays)
            ordered = sorted(delays)
            print(f"p95: {ordered[int(0.95 * len(ordered))] * 1000:.0f} ms")
            print(f"memory of the API server: {per_page / 1000:.0f} kB per open page, of {MANY_PAGES} pages")
        proxy.close()


def _on_slurm() -> None:
    """Count Slurm's commands while two tasks wait for their jobs, one of which runs, and nothing changes."""
    with slurm_bench() as (cluster, _, counted), cluster.cluster() as session, _server() as port:
        os.environ.update(cluster.connections())
        runs = submit(session, "echo at-0; exec sleep 3600", job_id="runs", gpus=4).handle
        wait(session, "runs", JobState.RUNNING)
        waits = submit(session, "true", job_id="waits", gpus=4, nodes=2).handle
        pages = [launched(job.to_json())("/live") for job in (runs, waits)]
        with Triggerer(cluster) as triggerer:
            triggerer.run(map(gpu_job_trigger, (runs, waits)))
            for count in (0, PAGES, 0, PAGES):
                viewers = _Viewers(port, pages, count)
                time.sleep(SETTLED_S)
                before = counted.count()
                time.sleep(COUNTED_S)
                commands = counted.count() - before
                viewers.end()
                print(f"{count:>3} pages, Slurm commands in {COUNTED_S:.0f} s: {shown(commands)}", flush=True)


@contextmanager
def _server() -> Iterator[int]:
    """Yield the port of an API server in this process."""
    with pytest.MonkeyPatch.context() as patch, api_server(patch, set(EVERYTHING)) as client:
        server = uvicorn.Server(uvicorn.Config(client.app, port=0, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class _Viewers:
    """Pages that are open in another process."""

    def __init__(self, port: int, addresses: Sequence[str], count: int) -> None:
        urls = [f"ws://127.0.0.1:{port}{address}" for address in addresses]
        command = [sys.executable, "-m", "benchmarks.live_viewers", str(count), *urls]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(token() + "\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"

    def end(self) -> list[float]:
        """Close them, and return how long each line took to each page, in seconds."""
        told, _ = self._process.communicate()
        delays: list[float] = json.loads(told)
        return delays


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
