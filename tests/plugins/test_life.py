"""The line of a job's life, from what its records say."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.plugins.life import life


def at(second: int) -> str:
    return f"2026-01-02T03:{second // 60:02}:{second % 60:02}.000+00:00"


def told(**known: Any) -> list[tuple[str, int, str, str | None]]:
    return [(part["kind"], part["attempt"], part["start"], part["end"]) for part in life(**known)]


def attempt(number: int, start: int | None = None, end: int | None = None, **more: Any) -> dict[str, Any]:
    times = {"started_at": None if start is None else at(start), "ended_at": None if end is None else at(end)}
    return {"attempt": number, "state": "FAILED", "reason": None, **times, **more}


def act(name: str, second: int, number: int | None = None) -> dict[str, Any]:
    return {"act": name, "at": at(second), "attempt": number}


def test_a_plain_job() -> None:
    known: dict[str, Any] = {"submitted_at": at(10), "attempts": [attempt(1, 20, 50, state="SUCCEEDED")]}
    assert told(**known) == [("queued", 1, at(10), at(20)), ("running", 1, at(20), at(50))]
    assert [part["label"] for part in life(**known)] == ["waited for GPUs", "attempt 1: succeeded"]


def test_what_lasts_has_no_end() -> None:
    assert told(submitted_at=at(10), attempts=[]) == [("queued", 1, at(10), None)]
    assert told(submitted_at=at(10), attempts=[attempt(1)]) == [("queued", 1, at(10), None)]
    running = told(submitted_at=at(10), attempts=[attempt(1, 20)])
    assert running == [("queued", 1, at(10), at(20)), ("running", 1, at(20), None)]
    assert told(submitted_at=None, attempts=[]) == []


@pytest.mark.parametrize("attempts", [[], [attempt(1, None, 30, state="CANCELLED")]])
def test_a_job_that_ended_while_it_waited(attempts: list[dict[str, Any]]) -> None:
    known = {"submitted_at": at(10), "attempts": attempts, "ended_at": at(30)}
    assert told(**known) == [("queued", 1, at(10), at(30))]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("host", [("building", 1, at(10), at(14)), ("queued", 1, at(14), at(20))]),
        ("slurm", [("queued", 1, at(10), at(16)), ("building", 1, at(16), at(20))]),
    ],
)
def test_inputs_come_and_an_environment_is_built(engine: str, expected: list[Any]) -> None:
    seconds = {"staging": 6, "building": 4.0, "queued": 10.0}
    found = told(submitted_at=at(10), attempts=[attempt(1, 20)], seconds=seconds, engine=engine)
    assert found == [("staging", 1, at(4), at(10)), *expected, ("running", 1, at(20), None)]
    longer = told(submitted_at=at(10), attempts=[attempt(1, 20)], seconds={"building": 60}, engine=engine)
    assert longer == [("building", 1, at(10), at(20)), ("running", 1, at(20), None)]


def test_a_task_of_its_own_has_staged() -> None:
    found = told(submitted_at=at(50), attempts=[attempt(1, 60)], acts=[act("stage", 20)], seconds={"staging": 5})
    assert found[0] == ("staging", 1, at(15), at(20))


def test_attempts_that_follow_by_themselves() -> None:
    attempts = [attempt(1, 20, 30, reason="preempted"), attempt(2, 45, 50, reason="user_error")]
    acts = [act("submit", 10, 1), act("recover", 31, 2)]
    parts = life(submitted_at=at(31), attempts=attempts, acts=acts)
    assert [(part["kind"], part["start"], part["end"], part["label"]) for part in parts] == [
        ("queued", at(10), at(20), "waited for GPUs"),
        ("running", at(20), at(30), "attempt 1: preempted"),
        ("recovering", at(30), at(45), "before attempt 2: goes on by itself after preempted"),
        ("running", at(45), at(50), "attempt 2: user error"),
    ]
    waiting = told(submitted_at=at(10), attempts=attempts[:1], acts=acts[:1], state="QUEUED")
    assert waiting[-1] == ("recovering", 2, at(30), None)
    # While nobody knows how it stands, nothing is said to follow.
    assert told(submitted_at=at(10), attempts=attempts[:1], acts=acts[:1], state="UNKNOWN")[-1][0] == "running"


def test_a_retry_of_airflow_leaves_a_gap() -> None:
    attempts = [attempt(1, 20, 30), attempt(2, 95)]
    acts = [act("submit", 10, 1), act("resubmit", 90, 2)]
    assert told(submitted_at=at(90), attempts=attempts, acts=acts)[2:] == [
        ("queued", 2, at(90), at(95)),
        ("running", 2, at(95), None),
    ]


def test_outputs_are_collected_once_or_more() -> None:
    acts = [act("submit", 10, 1), act("collect", 60), act("collect", 70)]
    parts = life(submitted_at=at(10), attempts=[attempt(1, 20, 50)], acts=acts)
    assert (parts[-1]["start"], parts[-1]["end"], parts[-1]["label"]) == (at(60), at(70), "outputs collected, 2 times")


def test_clocks_that_disagree_make_no_part_that_goes_back() -> None:
    found = told(submitted_at=at(30), attempts=[attempt(1, 20, 50)])
    assert found == [("queued", 1, at(30), at(30)), ("running", 1, at(20), at(50))]


@pytest.mark.parametrize("time", ["", "soon", "2026-01-02T03:00:00", 7, None, "9" * 5000])
def test_a_time_that_is_none_spoils_nothing(time: Any) -> None:
    spoilt = {"attempt": 1, "started_at": time, "ended_at": time}
    parts = told(submitted_at=at(10), attempts=[spoilt], acts=[{"act": "submit", "at": time, "attempt": 1}])
    assert parts == [("queued", 1, at(10), None)]
    assert told(submitted_at=time, attempts=[attempt(1, 20)]) == [("running", 1, at(20), None)]
