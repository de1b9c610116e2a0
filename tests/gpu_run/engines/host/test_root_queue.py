"""Waiting: one process for however many jobs, in their order, with nobody connected."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.host.root_queue import RootQueue
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.jobs.status import statuses
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.protocol.records import AttemptRequest
from tests.gpu_run.host import Host, is_alive
from tests.harness.patience import PATIENCE_S


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_thousand_waiting_jobs_are_one_waiting_process(
    host: Host, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    running = host.submit("sleep 1000", gpus=4)
    host.wait(running, state="RUNNING")
    jobs = [host.submit("true")]
    request = host.attempt(jobs[0]).request()
    for number in range(1, 1000):
        # As a submit does it, without all that it checks.
        job = host.job(f"waits-{number}")
        job.create()
        later: AttemptRequest = {**request, "request_key": str(number), "submitted": request["submitted"] + number}
        attempt = job.add_attempt(1, later, {})
        assert attempt is not None
        host.queue.add(attempt, later)
        jobs.append(job.job_id)
    host.dispatcher(jobs[-1])
    # The supervisor and its guard.
    assert len(host.processes("supervise")) == 2
    eventually(lambda: host.status(jobs[-1]).get("queue_place") == 1000)
    found = statuses(host.root, host.engine, jobs, 0)
    assert [status["queue_place"] for status in found] == list(range(1, 1001))
    assert {status["state"] for status in found} == {"QUEUED"}
    assert found[7]["message"].startswith(f"it needs 1 GPU; of 4 there are 0 free, 4 with {running} (")


def test_served_by_priority_then_by_time(host: Host) -> None:
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    order = Path(host.root.path, "order")
    ranks = {"low": "low", "normal-1": "normal", "normal-2": "normal", "high": "high"}
    jobs = {
        name: host.submit(f"echo {name} >> {order}", job_id=name, gpus=3, priority=rank) for name, rank in ranks.items()
    }
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    host.wait(*jobs.values())
    assert order.read_text().split() == ["high", "normal-1", "normal-2", "low"]


def test_a_big_job_is_not_starved_by_small_ones(host: Host) -> None:
    first = host.submit("sleep 1")
    host.wait(first, state="RUNNING")
    big = host.submit("true", gpus=4)
    small = [host.submit("sleep 0.1") for _ in range(8)]
    ended = host.wait(big)
    assert all(seconds(host.wait(job)["started_at"]) >= seconds(ended["ended_at"]) for job in small)


def test_a_short_job_uses_what_a_big_one_waits_for(host: Host, eventually: Callable[..., Any]) -> None:
    first = host.submit("sleep 20", time_limit_s=60)
    host.wait(first, state="RUNNING")
    big = host.submit("true", gpus=4)
    short = host.submit("true", time_limit_s=5)
    unlimited = host.submit("true")
    host.wait(short)
    assert host.status(big)["state"] == "QUEUED"
    eventually(lambda: "kept for jobs ahead" in host.status(unlimited)["message"])


def test_a_freed_gpu_finds_its_next_job_with_nobody_connected(host: Host) -> None:
    jobs = [host.submit("sleep 0.3", gpus=4) for _ in range(3)]
    last = host.attempt(jobs[-1])
    deadline = time.monotonic() + 20
    while not os.path.exists(last.at("exit.json")):  # and nothing else is asked for
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ends = [host.status(job) for job in jobs]
    for before, after in itertools.pairwise(ends):
        # Less than a second, on a machine that does nothing else meanwhile.
        assert seconds(after["started_at"]) - seconds(before["ended_at"]) < 5


def test_the_dispatcher_ends_with_the_last_that_waits(host: Host, eventually: Callable[..., Any]) -> None:
    job = host.submit("sleep 1000")
    host.wait(job, state="RUNNING")
    eventually(lambda: not host.processes("dispatch"))
    assert not list(Path(host.lease_dir).glob("queue-*"))
    assert host.queue.entries() == []


@pytest.mark.parametrize("revive", ["end of a job", "status", "submit", "cancel"])
def test_a_killed_dispatcher_is_revived(host: Host, eventually: Callable[..., Any], revive: str) -> None:
    first = host.submit("sleep 1000", gpus=4)
    host.wait(first, state="RUNNING")
    waiting = host.submit("true", gpus=4)
    dispatcher = host.dispatcher(waiting)
    os.kill(dispatcher, signal.SIGKILL)
    eventually(lambda: not is_alive(dispatcher))
    attempt, supervisor = host.attempt(waiting), host.status(first)["pid"]
    if revive == "status":
        statuses(host.root, host.engine, [first], 0)
        eventually(lambda: len(host.processes("dispatch")) == 1)
    elif revive == "submit":
        host.submit("true")
        eventually(lambda: len(host.processes("dispatch")) == 1)
    os.kill(supervisor, signal.SIGKILL if revive == "cancel" else signal.SIGTERM)
    eventually(lambda: os.path.exists(attempt.at("exit.json")))
    assert host.status(waiting)["state"] == "SUCCEEDED"
    assert len(host.job(waiting).attempts()) == 1


def test_a_dispatcher_killed_between_lease_and_claim_starts_nothing_twice(
    host: Host, eventually: Callable[..., Any]
) -> None:
    ran = Path(host.root.path, "ran")
    jobs = [host.submit(f"echo $JOB_ID >> {ran}; sleep 0.1") for _ in range(12)]
    for _ in range(6):
        for pid in host.processes("dispatch"):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.15)
        statuses(host.root, host.engine, jobs, 0)
    host.wait(*jobs, timeout_s=PATIENCE_S)
    assert sorted(ran.read_text().split()) == sorted(jobs)


def test_a_cancelled_job_leaves_the_line(host: Host) -> None:
    first = host.submit("sleep 1000", gpus=4)
    host.wait(first, state="RUNNING")
    waiting, next_one = host.submit("touch ran", gpus=4), host.submit("true", gpus=1)
    cancel(host.root, host.engine, [waiting], "ann", 0)
    assert host.status(waiting)["state"] == "CANCELLED"
    cancel(host.root, host.engine, [first], "ann", 5)
    assert host.wait(next_one)["state"] == "SUCCEEDED"
    assert not Path(host.job(waiting).at("code", "ran")).exists()


def test_a_waiting_job_whose_directory_is_deleted_holds_up_nobody(host: Host) -> None:
    first = host.submit("sleep 1", gpus=4)
    host.wait(first, state="RUNNING")
    gone, next_one = host.submit("true", gpus=4), host.submit("true", gpus=1)
    shutil.rmtree(host.job(gone).path)
    assert host.wait(next_one)["state"] == "SUCCEEDED"
    assert host.status(gone)["state"] == "LOST"


def test_entries_that_are_none_are_removed_and_the_others_served(host: Host) -> None:
    first = host.submit("sleep 0.5", gpus=4)
    host.wait(first, state="RUNNING")
    os.makedirs(host.queue.path, exist_ok=True)
    for number, text in enumerate(["", "{", "[]", '{"attempt": 7}', '{"attempt": "/nowhere/1"}', '{"x": 1}']):
        Path(host.queue.path, f"0-00000000000{number}.000000-garbage-{number}").write_text(text)
    broken = host.submit("true", gpus=4)
    Path(host.attempt(broken).at("request.json")).write_text("{")
    job = host.submit("true")
    assert host.wait(job)["state"] == "SUCCEEDED"
    assert not [name for name in host.queue.entries() if "garbage" in name]


def test_a_mutex_that_is_held_is_told_and_survived(host: Host, eventually: Callable[..., Any]) -> None:
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    job = host.submit("true")
    with open(Path(host.lease_dir, "mutex"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        eventually(lambda: f"process {os.getpid()} has kept" in host.status(job)["message"], timeout_s=30)
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    assert host.wait(job)["state"] == "SUCCEEDED"


def test_the_line_is_its_hosts_and_its_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path)
    path = host.queue.path
    monkeypatch.setattr(processes, "hostname", lambda: "another")
    assert host.queue.path != path
    monkeypatch.undo()
    assert RootQueue(host.root, {**host.settings, "virtual_gpus": 5}).path != path
    assert host.queue.path == path


def test_a_relative_lease_dir_is_meant_from_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    host = Host(tmp_path, lease_dir="x/../leases")
    assert host.queue.lease_dir == str(tmp_path / "leases")
    os.makedirs(host.queue.path)
    Path(host.queue.path, "pool.json").write_text(json.dumps({"virtual_gpus": 4, "lease_dir": host.queue.lease_dir}))
    assert RootQueue.at_path(host.queue.path).lease_dir == str(tmp_path / "leases")
