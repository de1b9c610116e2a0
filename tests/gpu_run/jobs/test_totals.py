"""The verb ``totals``: one look for all that monitoring wants to know of a cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import submission, totals
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from tests.gpu_run.host import Host

_WAIT = "import sys; print(flush=True); sys.stdin.read()"


def launch(host: Host, job_id: str, command: str = "sleep 100", **more: Any) -> None:
    request: Any = {**host.request(command, job_id=job_id, **more), "inputs": [], "record": {}}
    submission.submit(host.root, host.engine, request)


def asked(host: Host) -> Any:
    return totals.answer(host.root, host.engine, host.program).value


@pytest.fixture
def call(host: Host) -> Iterator[None]:
    """A process with the command line of a call, see ``connection/command_line.py``."""
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import sys; print(flush=True); sys.stdin.read()",
        host.program,
        "watch",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


@pytest.mark.usefixtures("call")
def test_one_look_tells_sums_jobs_gpus_and_calls(host: Host) -> None:
    line: Any = {"kind": "end", "at": "2026-01-01T00:00:00.000+00:00", "job_id": "x", "dag_id": "d", "user": "ada"}
    line.update(state="SUCCEEDED", gpu_seconds=60.0)
    Ledger(host.root.own).append(line)
    launch(host, "ended", "true")
    host.wait("ended")
    host.job("staged").create()
    launch(host, "runs", gpus=3)
    host.wait("runs", state="RUNNING")
    launch(host, "waits", gpus=4)
    launch(host, "spoilt", gpus=4)
    Path(host.attempt("spoilt").at("claim.json")).write_text("{")
    told = asked(host)
    assert "form" not in told["ledger"]
    pairs = {(pair["dag_id"], pair["user"]): pair["gpu_seconds"] for pair in told["ledger"]["pairs"]}
    assert pairs[("d", "ada")] == 60
    assert (told["waiting_jobs"], told["running_jobs"]) == (1, 1)
    assert [gpu["state"] for gpu in told["capacity"]["gpus"]] == ["leased"] * 3 + ["free"]
    assert told["calls"] == [{"verb": "watch", "count": 1}]


def test_what_cannot_be_looked_at_leaves_the_rest(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: HostEngine) -> None:
        raise Refused(protocol.PASSING_FAULT, "squeue does not answer")

    host.job("staged").create()
    monkeypatch.setattr(HostEngine, "capacity", silent)
    for name in ("ledger", "unfinished"):
        (Path(host.root.own) / name).symlink_to(name)
    told = asked(host)
    assert told == {"calls": told["calls"], "capacity_fault": "squeue does not answer"}
