"""
A log of 1 GB as the page of a job reads it: over the API, and over a real SSH connection to a cluster on this machine.

The job has three secrets, which are searched for in everything that is shown.
"""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.sandbox import Sandbox

_CONN_ID = "gpu_cluster_default"
_BYTES = 1 << 30
_LINE = "2026-01-02 03:04:{:02} INFO trainer.py:312 epoch 17: loss 0.{} saved=/home/ada/outputs/step-{}.pt\n"
_SECRETS = ("hf_0123456789abcdef0123456789", "wandb-0123456789012345678901234567890123", "postgrespassword")
_LOG = {"job_id": "job", "attempt": None, "stream": "output"}
_TIMES = 10


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-log-") as home:
        # Airflow makes its home at its first import.
        os.environ.update(
            AIRFLOW_HOME=home, AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR"
        )
        with Sandbox() as sandbox:
            os.environ.update(sandbox.environ())
            _write_log(sandbox.root_dir)
            asyncio.run(_measure())


def _write_log(root: Path) -> None:
    job = Root(str(root)).job("job")
    job.create()
    request: Any = {"spec": {}, "by": {}, "masks": masks_of(_SECRETS)}
    attempt = job.add_attempt(1, request, {})
    assert attempt is not None
    Path(attempt.at("exit.json")).write_text('{"state": "SUCCEEDED"}')
    block = "".join(_LINE.format(step % 60, step * 7919 % 100_000, step) for step in range(100_000)).encode()
    with open(job.at("logs", "training.log"), "wb") as file:
        while file.tell() < _BYTES:
            file.write(block)
        file.write(b"the needle is here\n")


async def _measure() -> None:
    from airflow_provider_gpu_cluster.plugins.live.asking import ask
    from airflow_provider_gpu_cluster.plugins.log_download import LogDownload

    async def search(text: str, **how: Any) -> None:
        place = None
        while True:
            found = await ask(_CONN_ID, "search-log", {**_LOG, "text": text, "place": place, "most": 500, **how})
            place = found["next"]
            if place is None:
                return

    async def download() -> None:
        copy = LogDownload(_CONN_ID, _LOG)
        await copy.begin()
        async for _ in copy.pieces():
            pass

    window = {**_LOG, "most_lines": 2000}
    await _timed(
        "the first window, with the connection", 1, lambda: ask(_CONN_ID, "read-log", {**window, "way": "before"})
    )
    await _timed("a window at the end", _TIMES, lambda: ask(_CONN_ID, "read-log", {**window, "way": "before"}))
    middle = {**window, "way": "around", "place": _BYTES // 2}
    await _timed("a window in the middle", _TIMES, lambda: ask(_CONN_ID, "read-log", middle))
    await _timed("search all of it for a text", 1, lambda: search("needle"))
    await _timed("in capital letters or not", 1, lambda: search("NEEDLE", ignore_case=True))
    await _timed("for a regular expression", 1, lambda: search(r"needle \w+ here", is_regex=True))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await _timed("download all of it", 1, download)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"memory that the download has taken: {more / 1024:.0f} MiB")


async def _timed(what: str, times: int, work: Callable[[], Awaitable[Any]]) -> None:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - began)
    print(f"{what:<45}{sorted(taken)[len(taken) // 2]:8.3f} s", flush=True)


if __name__ == "__main__":
    main()
