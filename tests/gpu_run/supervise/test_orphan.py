"""Jobs about which nobody asks any more, and what counts as asking."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.gc.collection import collect_garbage
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, submission
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.outputs import send
from airflow_provider_gpu_cluster.gpu_run.protocol.orphan_timeout import orphan_timeout_s
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Submit
from airflow_provider_gpu_cluster.gpu_run.store import asked, placements, renewals
from airflow_provider_gpu_cluster.gpu_run.store.records import read_json
from airflow_provider_gpu_cluster.gpu_run.supervise.orphan import OrphanLimit
from airflow_provider_gpu_cluster.gpu_run.watch.output import open_log
from tests.gpu_run.host import Host
from tests.gpu_run.watch.client import Client

LONG_AGO_S = 1000.0


def mark(host: Host, job_id: str) -> Path:
    return Path(host.job(job_id).at(".job", "asked"))


def let_nobody_ask(host: Host, *job_ids: str) -> None:
    """Make it look as if nobody had asked about these jobs for long."""
    for job_id in job_ids:
        os.utime(mark(host, job_id), (time.time() - LONG_AGO_S,) * 2)


def is_asked(host: Host, job_id: str) -> bool:
    at = asked.asked_at(host.job(job_id).path)
    return at is not None and time.time() - at < LONG_AGO_S / 2


def end_of(host: Host, job_id: str) -> Any:
    """Return the exit record, without asking about the job."""
    return read_json(host.job(job_id).attempt(1).at("exit.json"))


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def limit_at(limit: OrphanLimit, clock: Clock, now: float) -> Any:
    clock.now = now
    return limit.reached()


def test_a_running_job_ends_when_nobody_asks_and_runs_on_while_somebody_watches(
    host: Host, watch: Callable[..., Client], eventually: Callable[..., Any]
) -> None:
    watched, left = (host.submit("sleep 100", job_id=name, orphan_timeout_s=2.0) for name in ("watched", "left"))
    client = watch()
    client.subscribe(watched)
    end = eventually(lambda: end_of(host, left))
    assert (end["state"], end["reason"]) == ("CANCELLED", "orphaned")
    assert end["message"].startswith("nobody has asked about it for 2 s, its orphan_timeout, the last time at 20")
    assert end_of(host, watched) is None
    # Its client has gone.
    client.end()
    assert eventually(lambda: end_of(host, watched))["reason"] == "orphaned"
    # Whoever asks again is told, and starts nothing.
    assert host.status(left)["reason"] == "orphaned"


@pytest.mark.parametrize(("own", "of_connection", "limit"), [(None, 9.0, 9.0), (5.0, 9.0, 5.0), (None, None, None)])
def test_a_connection_has_a_default_and_a_job_its_own(
    own: float | None, of_connection: float | None, limit: float | None
) -> None:
    assert orphan_timeout_s({"gpus": 1, "orphan_timeout_s": own}, {"orphan_timeout_s": of_connection}) == limit


def test_a_waiting_job_is_not_started_when_nobody_has_asked(host: Host, eventually: Callable[..., Any]) -> None:
    runs = host.submit("sleep 100", gpus=4)
    host.wait(runs, state="RUNNING")
    jobs = [host.submit("true", gpus=4, job_id=name, orphan_timeout_s=LONG_AGO_S / 2) for name in ("left", "wanted")]
    let_nobody_ask(host, *jobs)
    assert host.status("wanted")["state"] == "QUEUED"
    cancel(host.root, host.engine, [runs], "somebody", 0)
    end = eventually(lambda: end_of(host, "left"))
    assert (end["state"], end["reason"], end.get("started_at")) == ("CANCELLED", "orphaned", None)
    assert end["message"].endswith("it was not started")
    assert eventually(lambda: end_of(host, "wanted"))["state"] == "SUCCEEDED"
    assert not Path(host.job("left").at("logs", "training.log")).exists()


def test_time_counts_from_the_last_change_of_the_mark_whatever_its_clock_says(host: Host) -> None:
    job = host.job("job")
    job.create()
    request: Any = {"spec": {"orphan_timeout_s": 100.0}, "settings": {}}
    clock = Clock()
    limit = OrphanLimit(job.attempt(1), request, clock=clock)
    # The clock of the disk is years behind.
    os.utime(mark(host, "job"), (10.0, 10.0))
    assert limit_at(limit, clock, 1.0) is None
    assert limit_at(limit, clock, 99.0) is None
    os.utime(mark(host, "job"), (11.0, 11.0))
    assert limit_at(limit, clock, 110.0) is None
    # Somebody has deleted it.
    mark(host, "job").unlink()
    assert limit_at(limit, clock, 200.0) is None
    assert limit_at(limit, clock, 299.0) is None
    end = limit_at(limit, clock, 305.0)
    assert end is not None
    assert end[1] == "orphaned"


def test_while_it_cannot_be_looked_at_nobody_is_said_not_to_have_asked(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = host.job("job")
    job.create()
    request: Any = {"spec": {"orphan_timeout_s": 100.0}, "settings": {}}
    clock = Clock()
    limit = OrphanLimit(job.attempt(1), request, clock=clock)
    assert limit_at(limit, clock, 1.0) is None

    def fail(path: str) -> None:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("airflow_provider_gpu_cluster.gpu_run.supervise.orphan.asked_at", fail)
        assert limit_at(limit, clock, 150.0) is None
    assert limit_at(limit, clock, 245.0) is None
    assert limit_at(limit, clock, 255.0) is not None


@pytest.mark.parametrize("array", [None, "array"])
def test_where_only_renewals_count_no_question_does(host: Host, array: str | None) -> None:
    job = host.job("job")
    job.create()
    placement: Any = {"epoch": 1, "key": "1", "renewed_only": True}
    request: Any = {"spec": {"orphan_timeout_s": 100.0}, "settings": {}, "placement": placement}
    if array:
        request["array"] = {"job_id": array}
    clock = Clock()
    limit = OrphanLimit(job.attempt(1), request, clock=clock)
    placed = array or "job"
    with placements.placing(host.root, placed):
        placements.note_placement(host.root, placements.new_note(placed, placement, "claim", None))
    assert limit_at(limit, clock, 1.0) is None
    renewals.note_renewed(host.root, placed)
    assert limit_at(limit, clock, 90.0) is None
    os.utime(mark(host, "job"), (11.0, 11.0))
    assert limit_at(limit, clock, 180.0) is None
    assert limit_at(limit, clock, 195.0) is not None
    # Whoever has found it here may keep it otherwise.
    with placements.placing(host.root, placed):
        later: Any = {"epoch": 2, "key": "1"}
        placements.note_placement(host.root, placements.new_note(placed, later, "claim", None))
    assert limit_at(limit, clock, 205.0) is None


def _array(host: Host) -> Submit:
    one = {"spec": {}, "env": {}, "run_script": "#!/bin/bash\nsleep 100\n"}
    elements = [{**one, "job_id": f"array_{index}"} for index in range(2)]
    return cast(Submit, {**host.request("sleep 100", job_id="array"), "inputs": [], "elements": elements})


@pytest.mark.parametrize("verb", ["status", "logs", "submit", "send", "cancel", "gc"])
def test_what_counts_as_asking(host: Host, verb: str) -> None:
    job = host.submit("sleep 100", job_id="job")
    let_nobody_ask(host, job)
    if verb == "status":
        host.status(job)
    elif verb == "logs":
        log = open_log(host.root, host.engine, {"job_id": job, "reader": "me", "ack": None, "max_bytes": 10})[1]
        if log is not None:
            log.close()
    elif verb == "submit":
        submission.submit(host.root, host.engine, host.request("sleep 100", job_id=job, request_key="2"))
    elif verb == "send":
        asked: Any = {"job_id": job, "list": True}
        send.answer(host.root, asked, io.BytesIO())
    elif verb == "cancel":
        cancel(host.root, host.engine, [job], "somebody", 0)
    else:
        collect_garbage(host.root, host.settings, host.program, 1e6)
    assert is_asked(host, job) is (verb != "gc")


def test_who_asks_about_an_array_asks_about_its_elements(host: Host) -> None:
    array_submission.submit_array(host.root, host.engine, _array(host))
    let_nobody_ask(host, "array_0", "array_1")
    host.status("array")
    assert is_asked(host, "array_0")
    assert is_asked(host, "array_1")


def test_a_job_that_is_gone_is_not_made_again(host: Host) -> None:
    host.status("gone")
    assert not Path(host.job("gone").path).exists()
