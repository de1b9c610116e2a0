"""Placements: of several clusters, one launches a job, and what it is told of the others holds for ever."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, placing, renewing, submission
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import PlaceCall, RenewCall, Submit
from tests.gpu_run.host import Host


def placement(epoch: int, key: str = "1", **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "key": key, "conn_id": "slurm-a", **more}


def tell(host: Host, kind: str, epoch: int, key: str = "1", **more: Any) -> dict[str, Any]:
    """Tell a host of a placement of the job "job", and return its answer."""
    own = {name: more.pop(name) for name in ("start_by", "renewed_only", "conn_id") if name in more}
    request = {"job_id": "job", "placement": placement(epoch, key, **own), "kind": kind, "settings": host.settings}
    return dict(placing.answer(host.root, host.engine, cast(PlaceCall, {**request, "umask": 0o22, **more})).value)


def outcome(host: Host, kind: str, epoch: int, key: str = "1", **more: Any) -> str:
    return str(tell(host, kind, epoch, key, **more)["outcome"])


def launch(host: Host, epoch: int | None, key: str = "1", command: str = "sleep 100", **more: Any) -> dict[str, Any]:
    own = {name: more.pop(name) for name in ("start_by", "renewed_only") if name in more}
    elements = more.pop("elements", 0)
    request: dict[str, Any] = {**host.request(command, job_id="job", request_key=key, **more), "inputs": []}
    if epoch is not None:
        request["placement"] = placement(epoch, key, **own)
    if elements:
        one = {"spec": {}, "env": {}, "run_script": request["run_script"]}
        request["elements"] = [{**one, "job_id": f"job_{index}"} for index in range(elements)]
        return dict(array_submission.submit_array(host.root, host.engine, cast(Submit, request)))
    return dict(submission.submit(host.root, host.engine, cast(Submit, request)))


def renew(host: Host, epoch: int, key: str = "1", **more: Any) -> bool:
    jobs = [{"job_id": "job", "epoch": epoch, "key": key, **more}]
    request = {"jobs": jobs, "settings": host.settings, "umask": 0o22}
    return bool(renewing.answer(host.root, host.engine, cast(RenewCall, request)).value["jobs"][0])  # type: ignore[index]


@pytest.fixture
def busy(host: Host) -> str:
    """Return a job that has all GPUs of the host."""
    job = host.submit("sleep 100", gpus=4)
    host.wait(job, state="RUNNING")
    return job


def test_of_two_that_choose_at_once_one_launches(host: Host) -> None:
    assert outcome(host, "claim", 1, "a") == "claimed"
    assert outcome(host, "fence", 1, "b") == "fenced"
    with pytest.raises(Refused, match="placed on another cluster") as refusal:
        launch(host, 1, "a")
    assert refusal.value.code == "outranked"
    # Another try that knows of both.
    assert outcome(host, "claim", 2, "a") == "claimed"
    assert launch(host, 2, "a")["created"]
    assert not launch(host, 2, "a")["created"]
    assert not Path(host.job("job").at("outputs", "x")).exists()


@pytest.mark.parametrize("kind", ["claim", "fence", "withdraw", "end"])
def test_a_lower_placement_is_outranked_and_changes_nothing(host: Host, kind: str) -> None:
    assert outcome(host, "claim", 2, "b") == "claimed"
    for epoch, key in ((1, "z"), (2, "a")):
        told = tell(host, kind, epoch, key)
        assert (told["outcome"], told["placement"]["epoch"], told["placement"]["key"]) == ("outranked", 2, "b")
    assert launch(host, 2, "b")["created"]


@pytest.mark.parametrize("kind", ["fence", "withdraw", "end"])
def test_one_that_was_told_no_launches_nothing_for_that_placement_any_more(host: Host, kind: str) -> None:
    assert outcome(host, kind, 1) == outcome(host, kind, 1) == "fenced"
    assert outcome(host, "claim", 1) == "outranked"
    for epoch in (None, 0, 1):
        with pytest.raises(Refused):
            launch(host, epoch)
    assert host.status("job")["state"] == "UNKNOWN"
    assert host.status("job")["moved_to"] == "slurm-a"
    assert launch(host, 2)["created"]
    assert "moved_to" not in host.status("job")


def test_what_waits_is_taken_back(host: Host, busy: str, tmp_path: Path) -> None:
    launch(host, 1, command=f"touch {tmp_path}/ran")
    assert outcome(host, "fence", 2) == "launched"
    told = tell(host, "withdraw", 2)
    assert told["outcome"] == "ended"
    status = host.status("job")
    assert (status["state"], status["reason"], status["placement"]) == ("CANCELLED", "cancelled", "withdrawn")
    assert status["message"] == "moved to another cluster (slurm-a) before it started"
    assert status["moved_to"] == "slurm-a"
    assert outcome(host, "withdraw", 2) == "ended"
    with pytest.raises(Refused):
        launch(host, 1, "another try")
    # It is moved away from here and back, by the same try.
    assert outcome(host, "claim", 3) == "claimed"
    host.queue.remove(host.queue.entries()[0]) if host.queue.entries() else None
    assert launch(host, 3, command="true")["created"]
    assert host.attempt("job").number == 2
    assert not (tmp_path / "ran").exists()


def test_what_runs_is_left_alone_or_ended(host: Host) -> None:
    launch(host, 1)
    host.wait("job", state="RUNNING")
    for kind in ("fence", "withdraw"):
        told = tell(host, kind, 2, "b")
        assert (told["outcome"], told["status"]["state"], told["placement"]["epoch"]) == ("launched", "RUNNING", 1)
    assert outcome(host, "end", 2, "b", by="ada") == "ended"
    status = host.wait("job")
    assert (status["state"], status["placement"]) == ("CANCELLED", "fenced")
    assert status["message"] == "moved to another cluster (slurm-a)"


def test_a_later_claim_takes_over_what_is_here(host: Host, busy: str) -> None:
    launch(host, 1, start_by=time.time() + 100)
    told = tell(host, "claim", 2, "b")
    assert (told["outcome"], told["status"]["state"], told["placement"]["epoch"]) == ("launched", "QUEUED", 2)
    assert not renew(host, 1)
    assert renew(host, 2, "b")
    host.attempt(busy)
    placing_end = tell(host, "claim", 2, "b")["outcome"]
    assert placing_end == "claimed"
    from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel

    cancel(host.root, host.engine, [busy], "ada", 8)
    host.wait("job", state="RUNNING")
