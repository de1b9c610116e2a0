"""A cancel of a job that goes on by itself: at every moment it is the job's end, and secrets go with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs import cancel
from airflow_provider_gpu_cluster.gpu_run.jobs.status import statuses
from airflow_provider_gpu_cluster.gpu_run.protocol.cancellation import CancelRecord
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from airflow_provider_gpu_cluster.gpu_run.store.next_attempt import follow
from tests.gpu_run.attempts import begin, first_attempt, preempt, waits_forever, write
from tests.gpu_run.host import Host


@pytest.fixture
def running(host: Host, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Return an attempt that runs, and would be followed by another."""
    waits_forever(monkeypatch)
    return first_attempt(host, "job")


def ask(host: Host) -> None:
    """Cancel the job, and look at what has become of it."""
    cancel.cancel(host.root, host.engine, ["job"], "ann", 0)


def assert_over(host: Host, *, attempts: int) -> None:
    """Check that the job was cancelled, for good."""
    for _ in range(2):
        status = host.status("job")
        assert (status["state"], status["reason"]) == (protocol.CANCELLED, protocol.REASON_CANCELLED)
        assert "cancelled by ann" in status["message"]
    assert host.attempt("job").number == attempts
    assert not list(Path(host.job("job").path).rglob("env.json"))
    assert Path(host.job("job").at("outputs", "FAILED")).exists()
    assert host.queue.entries() == []


def test_while_it_runs(host: Host, running: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(host.engine), "stop", lambda engine, attempt, claim: None)
    ask(host)
    # A preemption ends it before its supervisor has heard of the cancel.
    running.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, "cancelled by ann")
    assert_over(host, attempts=1)


def test_as_it_ends_for_another_reason(host: Host, running: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(host.engine), "stop", lambda engine, attempt, claim: None)
    ask(host)
    preempt(running)
    status = host.status("job")
    assert (status["state"], status["attempt"]) == (protocol.FAILED, 1)
    assert host.attempt("job").number == 1


def test_when_it_has_ended_and_nobody_has_made_the_next_attempt(host: Host, running: Attempt) -> None:
    preempt(running)
    ask(host)
    assert_over(host, attempts=2)


def test_between_the_decision_and_the_next_attempt(host: Host, running: Attempt) -> None:
    preempt(running)
    cancel._note(running, {"by": "ann", "at": ""})
    assert follow(host.job("job")) is None
    assert_over(host, attempts=2)


def test_while_the_next_attempt_waits(host: Host, running: Attempt) -> None:
    write(running, b"of attempt 1\n")
    write(running, b"of attempt 1\n", log="error")
    preempt(running)
    assert host.status("job")["state"] == protocol.QUEUED
    ask(host)
    assert_over(host, attempts=2)
    # The attempt that was cancelled has printed nothing; who looks at the whole output sees what came before.
    tails = [statuses(host.root, host.engine, ["job"], 1000, whole=whole)[0].get("log_tail") for whole in (False, True)]
    assert tails == ["", "of attempt 1\n"]


def test_when_the_next_attempt_begins_at_that_moment(
    host: Host, running: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    note: Callable[[Attempt, CancelRecord], bool] = cancel._note
    stopped: list[int] = []

    def note_early(attempt: Attempt, asked: CancelRecord) -> bool:
        is_new = note(attempt, asked)
        begin(attempt)
        return is_new

    preempt(running)
    monkeypatch.setattr(cancel, "_note", note_early)
    monkeypatch.setattr(type(host.engine), "stop", lambda engine, attempt, claim: stopped.append(attempt.number))
    ask(host)
    assert stopped == [2]
    # Its end is no reason for a third.
    preempt(host.attempt("job"))
    assert follow(host.job("job")) is None
    assert host.status("job")["state"] == protocol.FAILED


def test_when_the_next_attempt_is_made_at_that_moment(
    host: Host, running: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    note: Callable[[Attempt, CancelRecord], bool] = cancel._note

    def note_late(attempt: Attempt, asked: CancelRecord) -> bool:
        if attempt.number == 1:
            preempt(attempt)
            assert follow(attempt.job) is not None
        return note(attempt, asked)

    monkeypatch.setattr(cancel, "_note", note_late)
    monkeypatch.setattr(type(host.engine), "stop", lambda engine, attempt, claim: None)
    ask(host)
    assert_over(host, attempts=2)
