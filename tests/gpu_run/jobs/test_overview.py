"""What a cluster looks like, from the real program: its jobs, whose they are, and what is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import submission
from airflow_provider_gpu_cluster.gpu_run.jobs.overview import overview
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.store import records
from tests.gpu_run.host import Host

BY = {
    "dag_id": "nightly",
    "run_id": "r",
    "task_id": "train",
    "map_index": -1,
    "triggered_by": "ada",
    "other": "left out",
}


def launch(host: Host, job_id: str, gpus: int) -> None:
    request: Any = {**host.request("sleep 600", job_id=job_id, gpus=gpus), "inputs": [], "record": BY}
    submission.submit(host.root, host.engine, request)


def test_one_look_tells_gpus_jobs_queue_and_hours(host: Host, eventually: Callable[..., Any]) -> None:
    line: Any = {"kind": "end", "at": records.now(), "job_id": "x", "dag_id": "d", "user": "ada"}
    line.update(state="SUCCEEDED", gpus=2, leased_s=1.0, gpu_seconds=7200.0)
    Ledger(host.root.own).append(line)
    launch(host, "runs", 3)
    host.wait("runs", state="RUNNING")
    launch(host, "waits", 4)
    # Its dispatcher shows it to all of the host a moment later.
    eventually(lambda: overview(host.root, host.engine, 2)["view"]["waiting_jobs"])
    told = overview(host.root, host.engine, 2)
    view = told["view"]
    (node,) = view["nodes"]
    assert [(gpu["state"], gpu.get("job")) for gpu in node["gpus"]] == [("leased", 0)] * 3 + [("free", None)]
    runs, waits = view["jobs"]
    assert (runs["job_id"], runs["gpus"], waits["job_id"], waits["place"]) == ("runs", 3, "waits", 1)
    assert runs["by"] == {name: value for name, value in BY.items() if name != "other"}
    assert "of 4 there are 1 free, 3 with runs" in waits["why"]
    assert len(told["hours"]) == 2
    assert told["hours"][-1]["gpu_hours"] > 0
    assert told["disk"]["total"] > 0


def test_what_cannot_be_looked_at_leaves_the_rest(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: HostEngine) -> None:
        raise Refused(protocol.GPUS_UNAVAILABLE, "nvidia-smi gave no answer in 30 s")

    monkeypatch.setattr(HostEngine, "overview", silent)
    told = overview(host.root, host.engine, 1)
    assert told["fault"] == "nvidia-smi gave no answer in 30 s"
    assert "view" not in told
    assert len(told["hours"]) == 1
