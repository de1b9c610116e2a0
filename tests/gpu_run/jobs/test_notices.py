"""What people are to be told of a job that goes on: when, and by whom, once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs.notices import (
    Facts,
    JobNotices,
    due,
    facts_of,
    next_due_s,
    note_told,
    take,
)
from airflow_provider_gpu_cluster.gpu_run.store import records, told
from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from airflow_provider_gpu_cluster.gpu_run.store.told import ToldEvent
from tests.gpu_run.attempts import LONG_AGO, first_attempt, next_of, preempt, waits_forever, write
from tests.gpu_run.host import Host

ALL: Any = {"queued_for": 60, "no_progress_for": 30, "time_limit_in": 20, "recovered": True, "idle": True}


@pytest.mark.parametrize(
    ("facts", "events", "next_s"),
    [
        (Facts(1), [], float("inf")),
        (Facts(1, queued_s=59), [], 1),
        (Facts(1, queued_s=60), ["queued_for"], float("inf")),
        (Facts(1, quiet_s=29, left_s=1000), [], 1),
        (Facts(1, quiet_s=31, left_s=1000), ["no_progress_for"], 980),
        (Facts(1, quiet_s=5, left_s=20), ["time_limit_in"], 25),
        (Facts(1, quiet_s=5, left_s=-3), ["time_limit_in"], 25),
        (Facts(1, idle_s=1800), ["idle"], float("inf")),
        (Facts(3, recovered=(2, 3)), ["recovered", "recovered"], float("inf")),
    ],
)
def test_what_is_due_follows_from_the_facts(facts: Facts, events: list[str], next_s: float) -> None:
    assert [notice["event"] for notice in due(ALL, facts)] == events
    assert next_due_s(ALL, facts) == next_s
    # What nobody has asked for is not told.
    assert due({}, facts) == []
    assert next_due_s({}, facts) == float("inf")


def notices(host: Host, job_id: str, when: Any = ALL) -> list[Any]:
    return JobNotices(host.root, host.job(job_id), when).take(host.status(job_id))  # type: ignore[arg-type]


def waiting(host: Host, job_id: str = "waiting", **request: Any) -> Attempt:
    """Make a job that waits, and that nobody serves."""
    job = host.job(job_id)
    job.create()
    asked: Any = host.request("true", job_id=job_id)
    asked.update(requested_at=LONG_AGO, host="here", submitted=0.0, by={}, **request)
    attempt = job.add_attempt(1, asked, {})
    assert attempt is not None
    return attempt


def queued(attempt: Attempt) -> Any:
    return {"job_id": attempt.job.job_id, "state": protocol.QUEUED, "attempt": 1, "submitted_at": LONG_AGO}


def test_each_event_is_taken_once_whoever_looks_and_is_not_told_late(host: Host) -> None:
    attempt = waiting(host)

    def look() -> list[Any]:
        return JobNotices(host.root, attempt.job, ALL).take(queued(attempt))

    with ThreadPoolExecutor(8) as pool:
        taken = [notice for found in pool.map(lambda _: look(), range(16)) for notice in found]
    assert [(notice["event"], notice["attempt"], notice["tries"]) for notice in taken] == [("queued_for", 1, 1)]
    # The job has begun meanwhile, so nobody takes over what was not sent.
    note = Path(attempt.at("told"), "queued_for.json")
    records.write_json(str(note), {"state": "sending", "at": LONG_AGO, "tries": 1})
    begun: Any = {**queued(attempt), "state": protocol.RUNNING, "started_at": records.now()}
    assert JobNotices(host.root, attempt.job, ALL).take(begun) == []


def test_a_sender_that_is_gone_is_followed_by_another_and_each_has_longer(host: Host) -> None:
    attempt = waiting(host)
    note = str(Path(attempt.at("told"), "queued_for.json"))

    def look() -> int:
        found = JobNotices(host.root, attempt.job, ALL).take(queued(attempt))
        return found[0]["tries"] if found else 0

    def set_back(seconds: float) -> None:
        kept = records.read_json(note)
        at = time.gmtime(time.time() - seconds)
        records.write_json(note, {**kept, "at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", at)})

    assert [look(), look()] == [1, 0]
    set_back(told.TAKEN_OVER_AFTER_S - 10)
    assert look() == 0
    set_back(told.TAKEN_OVER_AFTER_S + 10)
    assert [look(), look()] == [2, 0]
    set_back(told.TAKEN_OVER_AFTER_S + 10)
    assert look() == 0
    set_back(2 * told.TAKEN_OVER_AFTER_S + 10)
    assert look() == 3
    note_told(host.root, attempt.job.job_id, "queued_for", 1)
    set_back(24 * 3600)
    assert look() == 0
    assert records.read_json(note)["state"] == "sent"


def test_progress_is_that_of_the_progress_file_else_output(host: Host) -> None:
    attempt = first_attempt(host, "job")
    when: Any = {"no_progress_for": 600}
    os.utime(attempt.at("log_starts.json"), (0, time.time() - 5000))

    def quiet_s() -> float:
        found = facts_of(attempt, host.status("job"), when).quiet_s  # type: ignore[arg-type]
        assert found is not None
        return found

    assert quiet_s() == pytest.approx(5000, abs=60)
    write(attempt, b"a line\n")
    assert quiet_s() < 60
    progress = attempt.job.at("logs", "progress.jsonl")
    Path(progress).write_text('{"step": 1}\n')
    os.utime(progress, (0, time.time() - 700))
    # It prints on, and makes no step.
    assert quiet_s() == pytest.approx(700, abs=60)
    (notice,) = notices(host, "job", when)
    assert (notice["event"], notice["limit_s"]) == ("no_progress_for", 600)
    Path(progress).write_text('{"step": 2}\n')
    assert quiet_s() < 60


def test_the_time_limit_counts_from_the_start_of_the_code(host: Host) -> None:
    attempt = first_attempt(host, "job", time_limit_s=3600.0)
    os.utime(attempt.at("log_starts.json"), (0, time.time() - 3000))
    (notice,) = notices(host, "job", {"time_limit_in": 900})
    assert notice["event"] == "time_limit_in"
    assert notice["left_s"] == pytest.approx(600, abs=60)
    os.unlink(attempt.at("log_starts.json"))
    # Its environment is still being built.
    assert facts_of(attempt, host.status("job"), ALL).left_s is None  # type: ignore[arg-type]


def test_each_recovery_is_told_with_its_attempt(host: Host, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "job")
    assert notices(host, "job", {"recovered": True}) == []
    preempt(attempt)
    assert [one["attempt"] for one in notices(host, "job", {"recovered": True})] == [2]
    next_of(host, attempt, eventually)
    assert notices(host, "job", {"recovered": True}) == []


@pytest.mark.parametrize(("index", "events"), [(0, ["queued_for"]), (1, [])])
def test_of_an_array_only_the_first_element_tells_that_it_waits(host: Host, index: int, events: list[str]) -> None:
    host.job("array").create()
    attempt = waiting(host, "element", array={"job_id": "array", "index": index, "count": 2})
    taken = JobNotices(host.root, attempt.job, ALL).take(queued(attempt))
    assert [notice["event"] for notice in taken] == events


def test_an_array_tells_each_event_once(host: Host) -> None:
    host.job("array").create()
    idle: Any = {"state": protocol.FAILED, "reason": protocol.IDLE}
    for index, events in enumerate((["idle"], [], [])):
        attempt = waiting(host, f"element-{index}", array={"job_id": "array", "index": index, "count": 3})
        ended: Any = {**queued(attempt), **idle}
        taken = JobNotices(host.root, attempt.job, ALL).take(ended)
        assert [notice["event"] for notice in taken] == events
        for notice in taken:
            note_told(host.root, attempt.job.job_id, notice["event"], notice["attempt"])


@pytest.mark.parametrize("spoilt", ["no JSON", "{}", '{"state": "sending", "at": 1, "tries": "x"}'])
def test_a_note_that_the_job_has_spoilt_counts_as_told(host: Host, spoilt: str) -> None:
    attempt = waiting(host)
    Path(attempt.at("told")).mkdir()
    Path(attempt.at("told"), "queued_for.json").write_text(spoilt)
    assert JobNotices(host.root, attempt.job, ALL).take(queued(attempt)) == []


def test_nothing_is_made_for_a_job_that_was_deleted(host: Host) -> None:
    attempt = waiting(host)
    os.rename(attempt.job.path, attempt.job.path + "-gone")
    with pytest.raises(FileNotFoundError):
        ToldEvent(attempt.job, (".job", "attempts", "1", "told"), "idle").take()
    note_told(host.root, attempt.job.job_id, "idle", 1)
    assert not os.path.exists(attempt.job.path)


@pytest.mark.parametrize(
    ("event", "is_one"),
    [
        ("failed", True),
        ("failed-retry-1f2e3d4c5b6a", True),
        ("idle_end-1f2e", True),
        ("idle-1f2e", False),
        ("failed-", False),
        ("failed-../../x", False),
        ("failed-" + "x" * 100, False),
        ("ended", False),
        ("", False),
    ],
)
def test_an_end_is_taken_once_by_each_of_those_who_are_told(host: Host, event: str, is_one: bool) -> None:
    waiting(host)
    if is_one:
        assert [take(host.root, "waiting", event, 1) for _ in range(2)] == [1, 0]
    else:
        with pytest.raises(Refused, match="there is no event"):
            take(host.root, "waiting", event, 1)
