"""Telling people what is due: beside the wait for the job, and once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.notify import notify_when
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.watch import notices
from airflow_provider_gpu_cluster.watch.job_watch import JobWatch
from airflow_provider_gpu_cluster.watch.notices import Notices
from tests.harness import recorder
from tests.harness.fake_cluster import FakeCluster
from tests.harness.recorder import Recorder

WHEN = notify_when({"queued_for": 60})
DUE: Any = {"event": "queued_for", "attempt": 2, "limit_s": 60.0, "for_s": 61.5, "tries": 1}
WAITING = JobStatus("job-1", JobState.QUEUED, attempt=2, due=(DUE,))


class TaskLog:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    warning = info


@pytest.fixture(autouse=True)
def nothing_sent() -> Iterator[None]:
    recorder.sent.clear()
    yield
    Recorder.hold.set()


def teller(log: TaskLog, noted: list[Any] | None = None, **notifier: Any) -> Notices:
    note: Any = None if noted is None else lambda job_id, notice: noted.append((job_id, notice["event"]))
    return Notices(WHEN, [recorder.PATH, notifier], conn_id="gpu", ti="the task", log=log, note_told=note)


def test_what_is_due_is_sent_with_its_facts_and_noted() -> None:
    log, noted = TaskLog(), list[Any]()
    tells = teller(log, noted)
    tells.tell(WAITING, cluster="me@gpu1")
    tells.wait(time.sleep)
    assert recorder.sent == [
        {
            "event": "queued_for",
            "state": "QUEUED",
            "cluster": "me@gpu1",
            "conn_id": "gpu",
            "ti": "the task",
            "event_id": "job-1/2/queued_for",
            "attempt": 2,
            "facts": {"limit_s": 60.0, "for_s": 61.5},
        }
    ]
    assert noted == [("job-1", "queued_for")]
    (line,) = log.lines
    assert (line["event"], line["event_id"]) == ("People were told about the GPU job", "job-1/2/queued_for")


def test_nothing_is_due_and_nothing_is_sent() -> None:
    tells = teller(TaskLog())
    tells.tell(JobStatus("job-1", JobState.RUNNING, attempt=2), cluster="me@gpu1")
    tells.wait(lambda seconds: pytest.fail("there is nothing to wait for"))
    assert recorder.sent == []


def test_who_cannot_send_says_so_and_notes_nothing() -> None:
    log = TaskLog()
    tells = teller(log, fails="no mail today")
    tells.tell(WAITING, cluster="me@gpu1")
    tells.wait(time.sleep)
    assert tells.take_sent() == []
    (line,) = log.lines
    assert line == {
        "event": "People could not be told about the GPU job; trying again later",
        "job_id": "job-1",
        "about": "queued_for",
        "error": "no mail today",
    }
    # The cluster gives it to somebody again.
    tells.tell(WAITING, cluster="me@gpu1")
    tells.wait(time.sleep)
    assert len(log.lines) == 2


def test_what_a_notifier_does_not_tell_counts_as_told() -> None:
    log = TaskLog()
    tells = teller(log, tells=False)
    tells.tell(WAITING, cluster="me@gpu1")
    tells.wait(time.sleep)
    assert tells.take_sent() == [("job-1", DUE)]
    assert log.lines == []


def test_a_slow_mail_server_delays_nobody_and_gets_no_second_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "LONGEST_WAIT_S", 0.3)
    Recorder.hold.clear()
    noted: list[Any] = []
    tells = teller(TaskLog(), noted)
    began = time.monotonic()
    for _ in range(3):
        tells.tell(WAITING, cluster="me@gpu1")
    assert time.monotonic() - began < 0.2
    tells.wait(time.sleep)
    assert noted == []
    Recorder.hold.set()
    monkeypatch.setattr(notices, "LONGEST_WAIT_S", 30.0)
    tells.wait(time.sleep)
    assert noted == [("job-1", "queued_for")]
    assert len(recorder.sent) == 1


@pytest.mark.parametrize("reader", [None, "reader"])
def test_a_task_that_waits_tells_and_has_it_noted(reader: str | None) -> None:
    ended = JobStatus("job-1", JobState.SUCCEEDED, attempt=2)
    cluster: Any = FakeCluster(WAITING, ended)
    handle = JobHandle("job-1", "gpu", "/jobs/job-1", "host", None, 1)
    log = TaskLog()
    watch = JobWatch(cluster, handle, log=log, reader=reader, notices=teller(log))
    assert watch.wait(pause=lambda s: time.sleep(0.01), longest_pause_s=1, unreachable_timeout_s=1).final
    assert cluster.noted == [("job-1", "queued_for")]
    assert cluster.asked_to_notify[0] == (WHEN if reader else {"job-1": WHEN})
    assert len(recorder.sent) == 1
