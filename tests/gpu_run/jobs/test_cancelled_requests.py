"""A cancel that arrives before the launch: no late launch follows, and the next try is free."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, submission
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Submit
from tests.gpu_run.host import Host
from tests.gpu_run.jobs.test_launch_processes import waiting_for, wanted
from tests.gpu_run.watch.client import Client

FILE = {"type": "upload", "kind": "code", "name": "a.py", "written": "a.py", "digest": "0" * 64, "single_file": True}


def launch(host: Host, request: Submit) -> Any:
    submit = array_submission.submit_array if "elements" in request else submission.submit
    return submit(host.root, host.engine, request)


def asked_for(host: Host, kind: str, key: str = "1", command: str = "sleep 100") -> Submit:
    """Return a request for one job or an array, which needs no files."""
    request: dict[str, Any] = {**host.request(command, job_id="job", request_key=key), "inputs": []}
    if kind == "array":
        one = {"spec": {}, "env": {}, "run_script": request["run_script"]}
        request["elements"] = [{**one, "job_id": f"job_{index}"} for index in range(2)]
    return cast(Submit, request)


def cancel_launch(host: Host, key: str = "1") -> dict[str, Any]:
    return dict(cancel(host.root, host.engine, ["job"], "ada", 0, {"job": key})[0])


def attempts(host: Host) -> int:
    return sum(len(host.job(job_id).attempts()) for job_id in ("job", "job_0", "job_1"))


@pytest.mark.parametrize("kind", ["job", "array"])
def test_a_launch_that_arrives_after_its_cancel_launches_nothing(host: Host, kind: str) -> None:
    assert cancel_launch(host)["state"] == "LOST"
    assert not Path(host.job("job").path).exists()
    with pytest.raises(Refused, match="job job was cancelled by ada before it was launched") as refusal:
        launch(host, asked_for(host, kind))
    assert refusal.value.code == "job_conflict"
    assert attempts(host) == 0
    # The next try of the task has another key.
    assert launch(host, asked_for(host, kind, "2"))["created"]


@pytest.mark.parametrize("kind", ["job", "array"])
def test_a_cancel_while_files_are_being_sent(host: Host, kind: str) -> None:
    request = asked_for(host, kind)
    request["inputs"] = cast(Any, [FILE])
    assert launch(host, request) == {"needs": [0]}
    cancel_launch(host)
    # They have arrived.
    request["inputs"] = []
    with pytest.raises(Refused, match="cancelled by ada"):
        launch(host, request)
    assert attempts(host) == 0


@pytest.mark.parametrize("kind", ["job", "array"])
def test_a_cancel_while_the_attempt_is_being_made_waits_for_it(
    host: Host, kind: str, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    ends: list[dict[str, Any]] = []
    canceller = threading.Thread(target=lambda: ends.append(cancel_launch(host)))
    add_attempt = submission.add_attempt

    # The elements of an array are made by several threads.
    alone = threading.Lock()

    def add_slowly(*args: Any, **more: Any) -> Any:
        with alone:
            is_first = canceller.ident is None
            if is_first:
                canceller.start()
        if is_first:
            # It has left its note, and waits for the lock that this thread holds.
            eventually(lambda: list(Path(host.root.own, "cancelled").glob("*.json")))
            time.sleep(0.05)
        return add_attempt(*args, **more)

    monkeypatch.setattr(submission, "add_attempt", add_slowly)
    launch(host, asked_for(host, kind))
    canceller.join()
    assert attempts(host) == (1 if kind == "job" else 2)
    assert eventually(lambda: host.status("job")["state"] == "CANCELLED")


def test_a_cancel_of_what_was_launched_is_as_ever(host: Host) -> None:
    launch(host, asked_for(host, "job"))
    cancel_launch(host)
    assert host.wait("job")["state"] == "CANCELLED"
    # A lost reply is asked for again.
    assert launch(host, asked_for(host, "job"))["status"]["state"] == "CANCELLED"


def test_a_launch_by_a_watch_that_is_cancelled_before_its_turn(
    host: Host, watch: Callable[..., Client], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    client = watch(waiting_for(gate))
    client.do("launch", key=1, request=wanted(host, "sleep 100", job_id="job"))
    cancel_launch(host)
    gate.touch()
    refused = client.until("refused")
    assert (refused["code"], "cancelled by ada" in refused["message"]) == ("job_conflict", True)
    assert attempts(host) == 0


def test_a_disk_without_room_for_the_note_keeps_no_job_alive(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(host, asked_for(host, "job"))

    def fail(*args: Any) -> None:
        raise Refused("no_space", "the disk is full")

    monkeypatch.setattr("airflow_provider_gpu_cluster.gpu_run.jobs.cancel.note_cancelled", fail)
    # Whoever asks does so again.
    with pytest.raises(Refused, match="full"):
        cancel_launch(host)
    assert host.wait("job")["state"] == "CANCELLED"


def test_notes_go_when_no_request_can_arrive_any_more(host: Host) -> None:
    for key in ("old", "new"):
        cancel_launch(host, key)
    folder = Path(host.root.own, "cancelled")
    old = next(iter(folder.iterdir()))
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    collect_garbage(host.root, host.settings, host.program, 60.0)
    assert [path for path in folder.iterdir() if path == old] == []
    assert len(list(folder.iterdir())) == 1
