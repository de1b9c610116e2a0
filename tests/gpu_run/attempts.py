"""Attempts that go on by themselves, made without running anything, so that a test says when each of them ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.recovery import policy
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from tests.gpu_run.host import Host

LONG_AGO = "2026-01-01T00:00:00.000+00:00"


def waits_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pause before an attempt be longer than any test, so that no dispatcher starts it."""
    monkeypatch.setattr(policy, "_FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(policy, "_LONGEST_PAUSE_S", 3600.0)


def first_attempt(host: Host, job_id: str, **spec: Any) -> Attempt:
    """Make a job that goes on after a preemption, and claim it as its supervisor, which is this process."""
    job = host.job(job_id)
    job.create()
    request: Any = host.request("true", job_id=job_id, **{"recover": {"preempted": 20}, **spec})
    request.update(requested_at=LONG_AGO, host=processes.hostname(), submitted=0.0, by={})
    attempt = job.add_attempt(1, request, {"SECRET": "s"})
    assert attempt is not None
    begin(attempt)
    return attempt


def begin(attempt: Attempt) -> None:
    """Claim an attempt as its supervisor, and note where its logs begin."""
    who: Any = dict(processes.identity(), by="supervisor", at=LONG_AGO, gpus=[], token="NO=PROCESS")
    assert attempt.claim(who)
    attempt.note_log_starts({"training": size(attempt, "training"), "error": size(attempt, "error")})


def size(attempt: Attempt, name: str) -> int:
    """Return the size of a log."""
    with open(attempt.job.at("logs", f"{name}.log"), "ab") as file:
        return file.tell()


def write(attempt: Attempt, data: bytes, *, log: str = "training") -> None:
    """Print as the job does."""
    with open(attempt.job.at("logs", f"{log}.log"), "ab") as file:
        file.write(data)


def preempt(attempt: Attempt) -> None:
    """Let it end so that another attempt follows; nobody has made that yet."""
    attempt.finish(protocol.FAILED, protocol.PREEMPTED, "its nodes were needed", host="gpu1")


def next_of(host: Host, attempt: Attempt, eventually: Callable[..., Any]) -> Attempt:
    """Return the attempt that somebody makes after this one."""
    eventually(lambda: host.attempt(attempt.job.job_id).number == attempt.number + 1)
    return host.attempt(attempt.job.job_id)
