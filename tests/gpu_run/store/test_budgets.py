"""Budgets of GPU-hours: who is counted, what is refused in which words, what waits, and that nothing slips through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, submission
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.protocol.notes import UnfinishedNote
from airflow_provider_gpu_cluster.gpu_run.store import budget_limits, budgets, records
from airflow_provider_gpu_cluster.gpu_run.store.budget_limits import (
    Count,
    HoursLimit,
    hours,
    limits_of,
    what_helps,
    why,
)
from airflow_provider_gpu_cluster.gpu_run.store.unfinished import all_unfinished, note_unfinished
from tests.gpu_run.attempts import first_attempt, next_of, preempt
from tests.gpu_run.host import Host

HOUR_S = 3600.0
ASKED = {"dag_id": "nightly", "triggered_by": "ada", "owner": "team"}
NOTE: UnfinishedNote = {
    "gpus": 2,
    "time_limit_s": None,
    "dag_id": "nightly",
    "user": "ada",
    "owner": "team",
    "noted_at": 0.0,
    "is_held": False,
}
MID_NOVEMBER = 1794700800.0


@pytest.fixture
def connect(cluster_folder: Path) -> Callable[..., Host]:
    """Return a function that returns the host by a connection with a budget."""

    def connect(budget: dict[str, float] | None = None, over_budget: str | None = None, **settings: Any) -> Host:
        return Host(cluster_folder, conn_id="gpu", gpu_hours_budget=budget, over_budget=over_budget, **settings)

    return connect


def request(host: Host, job_id: str, command: str = "true", **more: Any) -> Any:
    asked: Any = host.request(command, job_id=job_id, **more)
    asked["record"] = ASKED
    asked["caller"] = {"settings_read_at": time.time()}
    return asked


def submit(host: Host, job_id: str, command: str = "true", **more: Any) -> Any:
    """Submit a job as the verb does."""
    asked = request(host, job_id, command, **more)
    budgets.keep_budget(host.root.own, asked)
    host.job(job_id).create()
    return submission.submit(host.root, host.engine, asked)


def use(host: Host, gpu_hours: float, at: str | None = None, **by: str) -> None:
    """Let an attempt have used GPU-hours."""
    line: Any = {"kind": "end", "at": at or records.now(), "job_id": "before", "gpu_seconds": gpu_hours * HOUR_S}
    line.update({"dag_id": "nightly", "user": "ada", "owner": "team", **by})
    assert Ledger(host.root.own).append(line)


@pytest.mark.parametrize(
    ("budget", "keys"),
    [
        ({}, []),
        ({"dag:other": 1, "user:bob": 1}, []),
        ({"dag:*": 1, "dag:nightly": 2}, ["dag:nightly"]),
        ({"dag:*": 1, "user:ada": 3, "owner:*": 4, "all": 5}, ["dag:*", "user:ada", "owner:*", "all"]),
    ],
)
def test_of_each_kind_the_most_special_one_counts(budget: dict[str, float], keys: list[str]) -> None:
    assert [limit.key for limit in limits_of(budget, NOTE)] == keys


def test_names_may_have_any_characters() -> None:
    note: UnfinishedNote = {**NOTE, "user": "corp:ada *é\n", "dag_id": "", "owner": ""}
    assert [limit.key for limit in limits_of({"user:corp:ada *é\n": 1, "dag:*": 1, "owner:*": 1}, note)] == [
        "user:corp:ada *é\n"
    ]
    (limit,) = limits_of({"user:*": 1}, note)
    assert why(limit, Count(2.0), MID_NOVEMBER).isprintable()


def test_the_words() -> None:
    limit = HoursLimit("dag:nightly", "dag", "nightly", 40.0)
    assert why(limit, Count(41.3), MID_NOVEMBER) == (
        "the budget of GPU-hours of DAG 'nightly' for November 2026 is used up: 41.3 of 40"
    )
    assert why(limit, Count(38.0, 2.0, 1), MID_NOVEMBER).endswith(
        "40 of 40, of which 2 count for 1 job that waits or runs"
    )
    helps = what_helps(limit, Count(38.0, 2.0, 1), MID_NOVEMBER, "gpu")
    for part in ("2026-12-01 00:00 UTC", "connection gpu", "'dag:nightly'", "over_budget=wait", "time_limit"):
        assert part in helps
    assert [hours(value) for value in (0, 0.000564, 0.25, 1.5, 41.26, 12345.6)] == [
        "0",
        "0.00056",
        "0.25",
        "1.5",
        "41.3",
        "12,346",
    ]


def test_a_submit_beyond_the_budget_is_refused_with_both_numbers(connect: Callable[..., Host]) -> None:
    host = connect({"dag:nightly": 40, "dag:*": 1, "user:*": 1000})
    use(host, 39.9)
    use(host, 500, user="bob", dag_id="other")
    # Last month is over.
    use(host, 500, at="2020-01-31T23:59:59.000+00:00")
    assert submit(host, "fits", "sleep 60", gpus=1)["created"]
    with pytest.raises(Refused, match=r"DAG 'nightly' for .* is used up: 40.9 of 40, of which 1 count") as refused:
        submit(host, "beyond")
    assert refused.value.code == "over_budget"
    assert not host.job("beyond").attempts()
    # What was launched is found again.
    assert not submit(host, "fits", request_key="2")["created"]
    cancel(host.root, host.engine, ["fits"], "me", 10)
    assert not submit(host, "fits", "sleep 60")["created"]
    # It has used nearly nothing.
    assert submit(host, "beyond")["created"]


def test_what_runs_counts_what_it_has_used_so_far(connect: Callable[..., Host]) -> None:
    host = connect({"all": 3})
    attempt = first_attempt(host, "job", gpus=2)
    # It was launched by an earlier version, and its claim says that it has run since January.
    with pytest.raises(Refused, match=r"all jobs together .* of 3, of which .* count for 1 job that waits or runs"):
        submit(host, "other")
    (unfinished,) = all_unfinished(host.root.path)
    assert unfinished.path == attempt.path


@pytest.mark.parametrize(("limit_s", "at_once"), [(None, 3), (1800.0, 6), (7200.0, 3)])
def test_of_many_at_the_same_moment_no_more_start_than_fit(
    connect: Callable[..., Host], limit_s: float | None, at_once: int
) -> None:
    host = connect({"user:*": 40})
    use(host, 37)

    def is_taken(number: int) -> bool:
        try:
            return bool(submit(host, f"job-{number}", "sleep 60", time_limit_s=limit_s)["created"])
        except Refused:
            return False

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(is_taken, range(12))) == at_once
    cancel(host.root, host.engine, [f"job-{number}" for number in range(12)], "me", 10)


def array(host: Host, count: int) -> Any:
    asked = request(host, "array", "sleep 60")
    asked["elements"] = [
        {"job_id": f"array_{index}", "spec": {}, "env": {}, "run_script": "#!/bin/sh\nsleep 60\n"}
        for index in range(count)
    ]
    host.job("array").create()
    return array_submission.submit_array(host.root, host.engine, asked)


def test_an_array_starts_as_a_whole_or_waits_in_part(
    connect: Callable[..., Host], eventually: Callable[..., Any]
) -> None:
    with pytest.raises(Refused, match="2 of the 3 jobs of the array could start, and then"):
        array(connect({"all": 2}), 3)
    host = connect({"all": 2}, "wait")
    assert array(host, 3)["launched"] == 3
    host.wait("array_0", "array_1", state="RUNNING")
    status = host.status("array_2")
    assert (status["state"], "2 of 2" in status["message"]) == ("QUEUED", True)
    cancel(host.root, host.engine, ["array"], "me", 10)
    eventually(lambda: list(all_unfinished(host.root.path)) == [])


def test_a_job_waits_for_its_budget_and_for_nobody_behind_it(
    connect: Callable[..., Host], eventually: Callable[..., Any]
) -> None:
    host = connect({"dag:nightly": 0.5}, "wait")
    use(host, 0.7)
    reply = submit(host, "waits")
    assert reply["status"]["state"] == "QUEUED"
    assert "DAG 'nightly'" in reply["status"]["message"]
    assert "0.7 of 0.5" in reply["status"]["message"]
    # Of another DAG.
    assert host.run("true", gpus=4)["state"] == "SUCCEEDED"
    assert "0.7 of 0.5" in host.status("waits")["message"]
    assert host.status("waits")["queue_place"] is None
    # The field is raised, and somebody tests the connection.
    raised = connect({"dag:nightly": 5})
    call: Any = {"settings": raised.settings, "caller": {"settings_read_at": time.time()}}
    budgets.keep_budget(host.root.own, call)
    assert host.wait("waits")["state"] == "SUCCEEDED"


def test_an_older_reading_of_the_field_changes_nothing(connect: Callable[..., Host]) -> None:
    new: Any = {"settings": connect({"all": 5}).settings, "caller": {"settings_read_at": 200.0}}
    old: Any = {"settings": connect({"all": 1}).settings, "caller": {"settings_read_at": 100.0}}
    own = connect().root.own
    calls: list[Any] = [new, old, {"settings": {}}, {"settings": old["settings"]}]
    for call in calls:
        budgets.keep_budget(own, call)
    assert budgets._budget_now(own, old["settings"], 100.0) == ({"all": 5.0}, "", 200.0)
    gone: Any = {"settings": connect().settings, "caller": {"settings_read_at": 300.0}}
    budgets.keep_budget(own, gone)
    assert budgets._budget_now(own, old["settings"], 100.0)[0] == {}


def test_a_recovered_job_goes_on(connect: Callable[..., Host], eventually: Callable[..., Any]) -> None:
    host = connect({"all": 1}, "wait")
    attempt = first_attempt(host, "job", gpus=1)
    use(host, 100)
    preempt(attempt)
    host.status("job")
    follows = next_of(host, attempt, eventually)
    assert not budgets.is_held(follows, follows.request())


@pytest.mark.parametrize("broken", ["ledger", "sums", "notes", "no room"])
def test_a_budget_that_cannot_be_looked_at_keeps_no_job_from_starting(
    connect: Callable[..., Host], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = connect({"all": 1})
    if broken == "ledger":
        Path(host.root.own, "ledger").write_text("no folder")
    elif broken == "sums":
        monkeypatch.setattr(budgets, "read_totals", lambda *_, **__: {"is_complete": False, "months": {}})
    elif broken == "notes":
        Path(host.root.own, "unfinished").write_text("no folder")
    else:
        Path(host.root.own, "budgets").write_text("no folder")
    reply = submit(host, "job")
    assert reply["created"]
    assert bool(reply["status"].get("notes")) is (broken != "no room")
    assert "budget of GPU-hours cannot be looked at now" in str(reply["status"].get("notes")) or broken == "no room"


def test_notes_that_were_left_behind_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    note_unfinished(f"{root}/gone", 1, NOTE)
    note_unfinished(f"{root}/about-to-be-made", 1, {**NOTE, "noted_at": time.time()})
    (tmp_path / ".gpu-run/unfinished/job.2.json").write_text("[")
    (tmp_path / ".gpu-run/unfinished/x").mkdir()
    assert [os.path.basename(one.path) for one in all_unfinished(root)] == ["1"]
    assert len(os.listdir(tmp_path / ".gpu-run/unfinished")) == 3


def test_what_a_job_counts_at_least() -> None:
    least = budget_limits.least_seconds
    assert [least({**NOTE, "time_limit_s": limit}) for limit in (None, 60.0, 86400.0)] == [7200.0, 120.0, 7200.0]
