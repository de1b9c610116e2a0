"""A job that goes on by itself, as those see it who watch it and read its output."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory
from airflow_provider_gpu_cluster.gpu_run.watch.watched_job import WINDOW_BYTES
from tests.gpu_run.attempts import begin, first_attempt, next_of, preempt, waits_forever, write
from tests.gpu_run.host import Host
from tests.gpu_run.watch.client import Client

Watch = Callable[..., Client]
WITHOUT_INOTIFY = "inotify.Inotify.follow = lambda *arguments: False"


def states(client: Client) -> list[tuple[str, int]]:
    """Return the states that were told, with the attempt, each once in a row."""
    told: list[tuple[str, int]] = []
    for event in client.events:
        if event["event"] == "status":
            state = (event["status"]["state"], event["status"]["attempt"])
            told += [state] if told[-1:] != [state] else []
    return told


@pytest.mark.parametrize("change", ["", WITHOUT_INOTIFY])
def test_whoever_watches_makes_the_next_attempt_and_is_told_of_no_end(
    host: Host, watch: Watch, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "job")
    client = watch(change)
    client.subscribe("job")
    client.until("status", state="RUNNING")
    ended_at = time.monotonic()
    preempt(attempt)
    waiting = client.until("status", state="QUEUED")["status"]
    # A glance has found it; a full look comes every ten seconds.
    assert time.monotonic() - ended_at < 5
    assert (waiting["attempt"], waiting["log_attempt"]) == (2, 1)
    assert waiting["message"].startswith("attempt 1 was preempted")
    assert "; attempt 2 begins in " in waiting["message"]
    assert [(past["attempt"], past["reason"]) for past in waiting["attempts"]] == [(1, "preempted")]
    begin(next_of(host, attempt, eventually))
    client.until("status", state="RUNNING")
    host.attempt("job").finish(protocol.SUCCEEDED, None, "")
    client.until("status", state="SUCCEEDED")
    assert states(client) == [("RUNNING", 1), ("QUEUED", 2), ("RUNNING", 2), ("SUCCEEDED", 2)]


def test_no_byte_is_lost_or_sent_twice_when_the_attempt_changes(
    host: Host, watch: Watch, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "job")
    printed = bytes(range(256)) * (WINDOW_BYTES // 256) + b"more than fits into the window"
    write(attempt, printed)
    client = watch()
    client.subscribe("job", reader="task")
    # This reader lags behind, and acknowledges nothing before its attempt is over.
    read = client.read_output(WINDOW_BYTES, acks=False)
    assert "output" not in [event["event"] for event in client.settle()]
    preempt(attempt)
    client.until("status", state="QUEUED")
    client.ack(WINDOW_BYTES)
    read += client.read_output(len(printed) - len(read))
    attempt = next_of(host, attempt, eventually)
    begin(attempt)
    write(attempt, b"second")
    read += client.read_output(6)
    client.settle()
    client.end()
    # Between these two attempts nobody watches, and then somebody who goes on.
    preempt(attempt)
    client = watch()
    client.subscribe("job", reader="task")
    place = client.until("place")
    assert (place["attempt"], place["offset"]) == (1, len(read))
    attempt = next_of(host, attempt, eventually)
    begin(attempt)
    write(attempt, b"third")
    read += client.read_output(5)
    printed += b"secondthird"
    assert read == printed
    # Somebody else comes only now.
    client.subscribe("job", key=2, reader="another")
    place = client.until("place", key=2)
    assert (place["attempt"], place["offset"]) == (1, 0)
    assert client.read_output(len(printed), key=2) == printed
    assert "output" not in [event["event"] for event in client.settle()]


def test_a_full_disk_keeps_the_next_attempt_waiting_and_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks fill up at other moments, so that is made up."""
    waits_forever(monkeypatch)
    preempt(first_attempt(host, "job"))

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(JobDirectory, "add_attempt", fail)
        status = host.status("job")
    assert status["state"] == protocol.QUEUED
    told = "; attempt 2 follows, but it cannot be made now: /somewhere: No space left on device"
    assert status["message"].endswith(told)
    assert host.status("job")["attempt"] == 2


def test_an_attempt_that_goes_on_says_so_in_the_log_and_is_judged_by_its_own_output(host: Host, watch: Watch) -> None:
    """With real processes."""
    job = host.submit(
        'if [ "$ATTEMPT" = 1 ]; then touch "$CHECKPOINT_DIR/a.pt"; echo one; printf "early error" >&2; exit 85; fi\n'
        "echo two; exit 3",
        recover={"checkpointed": 5},
        checkpoint_exit_code=85,
    )
    client = watch()
    client.subscribe(job, reader="task")
    ended = client.until("status", state="FAILED")["status"]
    log = host.log(job)
    begun, line, rest = log.partition("gpu-run: attempt 1 saved")
    assert (begun, rest.split("\n")[1:]) == ("one\nearly error\n", ["two", ""])
    assert "; attempt 2 goes on from checkpoints/a.pt\n" in line + rest
    assert (ended["exit_code"], ended["log_tail"]) == (3, "two\n")
    assert client.read_output(len(log)).decode() == log
    assert {state for state, _ in states(client)} <= {"QUEUED", "RUNNING", "FAILED"}
    assert [state for state in states(client) if state[0] == "FAILED"] == [("FAILED", 2)]
    assert not Path(host.job(job).at("logs", "training.attempt-1.log")).exists()
