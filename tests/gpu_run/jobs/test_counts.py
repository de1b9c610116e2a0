"""What has happened to a job is given to one of those who look, to be counted once."""

from __future__ import annotations

import os
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs.counts import count
from airflow_provider_gpu_cluster.gpu_run.store import records
from tests.gpu_run.attempts import LONG_AGO, begin, first_attempt, next_of, preempt, waits_forever
from tests.gpu_run.host import Host


def counted(host: Host, job_id: str) -> list[tuple[str, int, str]]:
    found = count(host.root, [host.status(job_id)])  # type: ignore[list-item]
    return [(one["event"], one["attempt"], one.get("reason", "")) for one in found]


def test_a_start_and_an_end_are_counted_once(host: Host) -> None:
    attempt = first_attempt(host, "job")
    assert counted(host, "job") == [("started", 1, "")]
    assert counted(host, "job") == []
    facts: Any = {"submitted_at": LONG_AGO, "started_at": "2026-01-01T00:01:00+00:00", "gpu_seconds": 7.5}
    attempt.finish(protocol.FAILED, protocol.USER_ERROR, "", **facts)
    (end,) = count(host.root, [host.status("job")])  # type: ignore[list-item]
    assert (end["event"], end["state"], end["reason"], end["gpu_seconds"]) == ("ended", "FAILED", "user_error", 7.5)
    assert end["seconds"]["queued"] == 60
    assert counted(host, "job") == []


def test_what_was_never_seen_while_it_ran_is_counted_at_its_end(host: Host) -> None:
    attempt = first_attempt(host, "job")
    attempt.finish(protocol.SUCCEEDED, None, "", submitted_at=LONG_AGO, started_at=records.now())
    assert counted(host, "job") == [("started", 1, ""), ("ended", 1, "")]


def test_a_job_that_was_cancelled_while_it_waited_has_not_started(host: Host) -> None:
    attempt = first_attempt(host, "job")
    attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, "", submitted_at=LONG_AGO)
    assert counted(host, "job") == [("ended", 1, "cancelled")]


def test_recoveries_that_nobody_has_seen_are_counted(
    host: Host, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "job")
    for _ in range(2):
        preempt(attempt)
        host.status("job")
        attempt = next_of(host, attempt, eventually)
        begin(attempt)
    assert sorted(counted(host, "job")) == [
        ("recovered", 2, "preempted"),
        ("recovered", 3, "preempted"),
        ("started", 3, ""),
    ]
    assert counted(host, "job") == []


def test_whoever_cannot_note_it_counts_nothing(host: Host) -> None:
    attempt = first_attempt(host, "job")
    os.mkdir(attempt.at("started.counted"))
    assert counted(host, "job") == []
