"""What sources tell, in the rows of real databases."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table import queries, recording
from airflow_provider_gpu_cluster.job_table.facts import GONE, AttemptFacts, JobFacts, StandingFacts, TaskKey
from airflow_provider_gpu_cluster.job_table.ledger_facts import facts_of_line
from airflow_provider_gpu_cluster.job_table.queries import Selection
from airflow_provider_gpu_cluster.job_table.recording import record, write
from airflow_provider_gpu_cluster.job_table.status_note import StatusNotes, facts_of
from airflow_provider_gpu_cluster.job_table.storable import json_object
from airflow_provider_gpu_cluster.job_table.tables import attempts, details, jobs
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

NOON = datetime(2026, 11, 28, 12, 0, 0, 123456, tzinfo=timezone.utc)
TASK = TaskKey("mine", "manual__2026-11-28T12:00:00+00:00", "train", -1)
LAUNCH = JobFacts("lab", "mine-train-1", TASK, True, NOON, {"engine": "host", "gpus": 2, "user_name": "ada"})
HOSTILE = {
    "NaN": float("nan"),
    "inf": [float("-inf")],
    "nul\x00": "a\x00b",
    "lone \ud800": "\udfff",
    "four \N{GRINNING FACE}": "\N{GRINNING FACE}",
    "huge": 10**400,
    "large": 10**30,
    "long": "x" * 100_000,
    "deep": [[[[[[[[[[[[[1]]]]]]]]]]]]],
    "bidi": "\N{RIGHT-TO-LEFT OVERRIDE}evil",
    "'; drop table gpu_cluster_job; --": "\\",
}


def written(session: Session, *facts: JobFacts) -> list[dict[str, Any]]:
    record(session, list(facts))
    session.commit()
    return rows(session)


def rows(session: Session) -> list[dict[str, Any]]:
    return queries.page_of(session, Selection({"mine"}), "submitted_at", 1000, 0)


def standing(state: str, attempt: int = 1, **more: Any) -> JobFacts:
    return JobFacts("lab", "mine-train-1", standing=StandingFacts(attempt, state, **more))


def test_a_launch_makes_a_row_and_telling_it_again_changes_nothing(session: Session) -> None:
    first = written(session, LAUNCH)
    (row,) = first
    assert (row["state"], row["gpus"], row["user"], row["submitted_at"]) == ("UNKNOWN", 2, "ada", NOON)
    assert row["is_latest"] is True
    assert written(session, LAUNCH) == first


def test_what_nobody_has_launched_makes_no_row(session: Session) -> None:
    assert written(session, standing("RUNNING")) == []


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("gpu_seconds", "left"), [(0.0, ["other"]), (60.0, ["lab", "other"])])
def test_a_job_that_was_moved_while_it_waited_is_there_once(
    session: Session, is_first: bool, gpu_seconds: float, left: list[str]
) -> None:
    end = {
        **dict(zip(("dag_id", "run_id", "task_id"), TASK, strict=False)),
        "job_id": "mine-train-1",
        "attempt": 1,
        "state": "CANCELLED",
        "reason": "cancelled",
        "ended_at": NOON.isoformat(),
        "gpu_seconds": gpu_seconds,
        "placement": "withdrawn",
    }
    taken_back = facts_of_line("lab", end)
    assert taken_back is not None
    (row,) = written(session, LAUNCH, taken_back)
    assert row["kind"] == "withdrawn"  # where else it is, is not known yet
    after = replace(LAUNCH, conn_id="other", submitted_at=NOON + timedelta(minutes=5))
    found = written(session, *((after, taken_back) if is_first else (after,)))
    assert sorted(row["conn_id"] for row in found) == left
    assert [row["is_latest"] for row in found if row["conn_id"] == "other"] == [True]


def test_an_array_that_was_moved_is_there_once(session: Session) -> None:
    array = replace(LAUNCH, known={"element_count": 2}, is_here=True)
    ends = [
        facts_of_line(
            "lab",
            {
                **dict(zip(("dag_id", "run_id", "task_id"), TASK, strict=False)),
                "job_id": f"mine-train-1_{element}",
                "array": "mine-train-1",
                "element": element,
                "attempt": 1,
                "state": "CANCELLED",
                "reason": "cancelled",
                "ended_at": NOON.isoformat(),
                "gpu_seconds": 0.0,
                "placement": "withdrawn",
            },
        )
        for element in (0, 1)
    ]
    row = written(session, array, *filter(None, ends))[0]
    assert (row["state"], row["reason"], row["kind"]) == ("CANCELLED", "cancelled", "withdrawn")
    (row,) = written(session, replace(array, conn_id="other", submitted_at=NOON + timedelta(minutes=5)))
    assert (row["conn_id"], row["element_count"]) == ("other", 2)


def test_all_parts_of_an_array_are_of_the_latest(session: Session) -> None:
    ids = ("mine-train-0badcafe", "mine-train-1badcafe", "mine-train-1badcafe.p2", "mine-train-1badcafe.p3")
    for hours, job_id in enumerate(ids):
        found = written(session, replace(LAUNCH, job_id=job_id, submitted_at=NOON + timedelta(hours=hours)))
    assert {row["job_id"]: row["is_latest"] for row in found} == dict(zip(ids, (False, True, True, True), strict=True))


@pytest.mark.parametrize(("gpu_seconds", "left"), [(None, ["other"]), (60.0, ["lab", "other"])])
def test_a_job_leaves_a_cluster_that_nobody_reaches(
    session: Session, gpu_seconds: float | None, left: list[str]
) -> None:
    before = AttemptFacts(-1, 1, "FAILED", gpu_seconds=gpu_seconds)
    written(session, replace(LAUNCH, attempts=(before,)), standing("RUNNING", 2))
    there = replace(LAUNCH, conn_id="other", submitted_at=NOON + timedelta(minutes=5), is_here=True)
    found = written(session, there, replace(there, job_id="mine-train-1.p2"))
    assert sorted(row["conn_id"] for row in found if row["job_id"] == "mine-train-1") == left
    for row in found:
        if row["conn_id"] == "lab":
            told = "The job is on another cluster now (other)."
            assert (row["state"], row["kind"], row["message"]) == ("CANCELLED", "fenced", told)


def test_a_row_goes_on_and_never_back(session: Session) -> None:
    written(session, LAUNCH, standing("RUNNING", host="gpu1", started_at=NOON))
    (row,) = written(session, standing("QUEUED", message="waits"))
    assert (row["state"], row["host"], row["message"]) == ("RUNNING", "gpu1", None)
    (row,) = written(session, standing("FAILED", reason="preempted", message="node lost", ended_at=NOON))
    assert (row["state"], row["reason"], row["host"]) == ("FAILED", "preempted", "gpu1")
    # The next attempt knows nothing of the end of the one before.
    (row,) = written(session, standing("QUEUED", 2))
    assert (row["state"], row["reason"], row["ended_at"], row["message"], row["host"]) == ("QUEUED", *[None] * 4)
    (row,) = written(session, standing("SUCCEEDED", 2), standing("FAILED", 1), standing("RUNNING", 2))
    assert (row["state"], row["attempt"]) == ("SUCCEEDED", 2)


def test_seconds_of_all_attempts_are_added_up_once(session: Session) -> None:
    first = AttemptFacts(-1, 1, "FAILED", gpu_seconds=10.0, used_gpu_seconds=5.0)
    second = AttemptFacts(-1, 2, "SUCCEEDED", gpu_seconds=4.0)
    told = replace(LAUNCH, attempts=(first, second))
    for _ in range(2):
        (row,) = written(session, told)
        assert (row["gpu_seconds"], row["used_gpu_seconds"]) == (14.0, 5.0)
    # Who has not seen the end yet tells less.
    (row,) = written(session, replace(LAUNCH, attempts=(replace(second, state="RUNNING", gpu_seconds=1.0),)))
    assert row["gpu_seconds"] == 14.0


@pytest.mark.parametrize("is_size_known", [True, False])
def test_an_array_ends_with_its_last_element(session: Session, is_size_known: bool) -> None:
    array = replace(LAUNCH, known={"element_count": 2} if is_size_known else {})

    def told(element: int, attempt: int, state: str, minutes: int = 0, reason: str | None = None) -> dict[str, Any]:
        ended_at = NOON + timedelta(minutes=minutes) if minutes else None
        facts = AttemptFacts(element, attempt, state, reason, ended_at, gpu_seconds=float(minutes))
        (row,) = written(session, replace(array, attempts=(facts,)))
        return row

    assert told(0, 1, "SUCCEEDED", 1)["state"] == ("RUNNING" if is_size_known else "SUCCEEDED")
    told(1, 2, "QUEUED")
    assert told(1, 1, "FAILED", 2, "preempted")["state"] == "RUNNING"
    row = told(1, 2, "CANCELLED", 4, "cancelled")
    assert (row["state"], row["reason"], row["gpu_seconds"], row["element_count"]) == ("CANCELLED", "cancelled", 7.0, 2)
    assert row["ended_at"] == NOON + timedelta(minutes=4)


def test_an_array_has_run_since_its_first_element_has(session: Session) -> None:
    for element, minutes in enumerate((3, 1, 2)):
        line = {
            "dag_id": "mine",
            "run_id": "r",
            "task_id": "train",
            "job_id": f"sweep_{element}",
            "array": "sweep",
            "element": element,
            "attempt": 1,
            "state": "SUCCEEDED",
            "started_at": str(NOON + timedelta(minutes=minutes)),
            "ended_at": str(NOON + timedelta(hours=1)),
        }
        facts = facts_of_line("lab", line)
        assert facts is not None
        (row,) = written(session, facts)
    assert row["started_at"].minute == 1


def test_a_job_that_its_cluster_has_forgotten_is_unknown(session: Session) -> None:
    gone = JobFacts("lab", LAUNCH.job_id, is_gone=True)
    (row,) = written(session, LAUNCH, standing("RUNNING"), gone)
    assert (row["state"], row["message"]) == ("UNKNOWN", GONE)
    (row,) = written(session, standing("SUCCEEDED"), gone)
    assert row["state"] == "SUCCEEDED"


def test_the_latest_job_of_a_task_is_marked(session: Session) -> None:
    later = replace(LAUNCH, job_id="mine-train-2", submitted_at=NOON + timedelta(hours=1))
    of_another = replace(LAUNCH, job_id="mine-train-3", task=TASK._replace(map_index=3))
    found = {row["job_id"]: row["is_latest"] for row in written(session, later, of_another)}
    assert found == {"mine-train-2": True, "mine-train-3": True}
    # The earlier one is told later, as when the table is rebuilt.
    found = {row["job_id"]: row["is_latest"] for row in written(session, LAUNCH)}
    assert found == {"mine-train-1": False, "mine-train-2": True, "mine-train-3": True}


def test_who_has_launched_it_knows_better_than_who_has_its_handle(session: Session) -> None:
    guess = replace(LAUNCH, task=TASK._replace(task_id="wait"), is_certain=False, known={"engine": "slurm"})
    (row,) = written(session, guess)
    assert row["task_id"] == "wait"
    (row,) = written(session, LAUNCH)
    assert (row["task_id"], row["engine"]) == ("train", "host")
    assert written(session, guess)[0]["task_id"] == "train"
    assert "wait" not in session.scalars(select(jobs.c.search_text)).one()


def test_names_differ_by_case_and_accents(session: Session) -> None:
    names = ["train", "Train", "träin"]
    facts = [replace(LAUNCH, job_id=f"mine-{name}", task=TASK._replace(task_id=name)) for name in names]
    assert len(written(session, *facts)) == 3
    chosen = queries.page_of(session, Selection({"mine"}, {"task_id": ["Train"]}), "job_id", 10, 0)
    assert [row["task_id"] for row in chosen] == ["Train"]
    assert queries.sums_of(session, Selection({"MINE"})).jobs == 0


def test_hostile_values_are_stored(session: Session) -> None:
    status = JobStatus(
        LAUNCH.job_id,
        JobState.RUNNING,
        attempt=1,
        message="\x00\ud800\N{GRINNING FACE}\x1b[31m" + "y" * 5000,
        host="\x00" * 300,
        progress=HOSTILE,
        gpu_seconds=float("inf"),
        started_at="9999-12-31T23:59:59+00:00",
    )
    (row,) = written(session, LAUNCH, facts_of(JobHandle(LAUNCH.job_id, "lab", "/\ud800", "host", None, 1), status))
    assert row["progress"]["NaN"] == "NaN"
    assert row["progress"]["four \N{GRINNING FACE}"] == "\N{GRINNING FACE}"
    assert "\N{GRINNING FACE}" in row["message"]
    assert len(row["message"]) < 1100
    assert (row["gpu_seconds"], row["started_at"]) == (None, None)
    assert len(rows(session)) == 1


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists)))
def test_json_of_jobs_is_bounded_and_plain(value: dict[str, Any]) -> None:
    stored = json.dumps(json_object(value, 500), allow_nan=False)
    assert len(stored) <= 510
    assert "\\u0000" not in stored


def test_two_that_write_at_once_make_each_row_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "AT_ONCE", 40)
    facts = [replace(LAUNCH, job_id=f"mine-train-{n}", task=TASK._replace(map_index=n)) for n in range(200)]
    told = [replace(one, attempts=(AttemptFacts(-1, 1, "SUCCEEDED", gpu_seconds=1.0),)) for one in facts]
    errors: list[BaseException] = []

    def write_all(order: list[JobFacts]) -> None:
        try:
            write(order)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write_all, args=[order]) for order in (told, told[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert queries.sums_of(session, Selection({"mine"})) == queries.Sums(200, 200.0, 0.0)
    assert session.scalar(select(func.count()).select_from(attempts)) == 200


def test_a_watched_status_is_written_within_seconds(session: Session) -> None:
    written(session, LAUNCH)
    notes = StatusNotes(write_every_s=3600)
    handle = JobHandle(LAUNCH.job_id, "lab", "/jobs/1", "host", NOON.isoformat(), 2)
    for step in range(3):
        notes.note(handle, JobStatus(LAUNCH.job_id, JobState.RUNNING, attempt=1, progress={"step": step}))
    notes.note(handle, None)  # type: ignore[arg-type]
    notes.write()
    session.rollback()
    (row,) = rows(session)
    assert (row["state"], row["progress"]) == ("RUNNING", {"step": 2})
    assert session.scalar(select(func.count()).select_from(details)) == 1


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        ("ADA  train", True),
        ("50%", True),
        ("a_b", True),
        ("axb", False),
        ("ünï \N{GRINNING FACE}", True),
        ("\ud800", False),
    ],
)
def test_every_word_must_occur_in_what_names_a_job(session: Session, words: str, is_found: bool) -> None:
    standing = StandingFacts(1, "FAILED", message="OUT at 50% of a_b, ÜNÏ \N{GRINNING FACE}")
    written(session, replace(LAUNCH, standing=standing))
    assert queries.sums_of(session, Selection({"mine"}, words=words)).jobs == is_found
    assert queries.sums_of(session, Selection({"mine"}, words=f"{words} nowhere")).jobs == 0
