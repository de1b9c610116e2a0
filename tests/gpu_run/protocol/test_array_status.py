"""How an array stands, from how its elements stand."""

from __future__ import annotations

from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol.array_status import MOST_TAILS, summary
from airflow_provider_gpu_cluster.gpu_run.protocol.status import Status


def element(state: str, **more: Any) -> Status:
    return cast(Status, {"job_id": "x", "state": state, "attempt": 1, **more})


def failed(reason: str = "user_error", message: str = "it ended with exit code 1", **more: Any) -> Status:
    return element("FAILED", **{"reason": reason, "message": message, "exit_code": 1, **more})


DONE = element("SUCCEEDED", started_at="2026-01-01T00:00:01", ended_at="2026-01-01T00:00:09", gpu_seconds=8.0)
RUNS = element("RUNNING", started_at="2026-01-01T00:00:02", gpus=[3])
WAITS = element("QUEUED", submitted_at="2026-01-01T00:00:00")


@pytest.mark.parametrize(
    ("elements", "state"),
    [
        ([DONE, DONE], "SUCCEEDED"),
        ([DONE, RUNS, WAITS], "RUNNING"),
        ([DONE, WAITS], "QUEUED"),
        ([DONE, element("UNKNOWN"), WAITS], "UNKNOWN"),
        # As long as one is not proven to have ended, the array has not.
        ([failed(), element("UNKNOWN")], "UNKNOWN"),
        ([failed(), RUNS], "RUNNING"),
        ([failed(), DONE], "FAILED"),
        ([DONE, element("LOST", reason="lost"), failed()], "LOST"),
        ([element("CANCELLED", reason="cancelled"), failed()], "CANCELLED"),
    ],
)
def test_it_has_ended_when_all_have_and_as_the_first_that_ended_badly(elements: list[Status], state: str) -> None:
    assert summary("a", elements)["state"] == state


def test_the_cause_is_that_of_the_first_which_ended_badly() -> None:
    status = summary("a", [DONE, failed("time_limit", exit_code=None), failed()])
    assert (status["reason"], status["exit_code"]) == ("time_limit", None)


def test_elements_with_one_cause_are_named_together_and_not_without_end() -> None:
    some = [DONE, failed(), DONE, failed("lost", "gone"), failed()]
    expected = "of 5 elements 2 succeeded, 3 failed: 1, 4 (user_error: it ended with exit code 1); 3 (lost: gone)"
    assert summary("a", some)["message"] == expected
    assert summary("a", [failed()] * 200)["message"].endswith(
        "8, 9 (user_error: it ended with exit code 1) and 190 more"
    )


def test_what_its_elements_have_recovered_from_is_counted() -> None:
    twice, once = element("RUNNING", recovered={"lost": 1, "preempted": 1}), element("FAILED", recovered={"lost": 2})
    assert summary("a", [DONE, twice, once])["recovered"] == {"lost": 3, "preempted": 1}
    assert "recovered" not in summary("a", [DONE, RUNS])


def test_times_and_costs_are_those_of_all() -> None:
    status = summary("a", [DONE, RUNS, WAITS])
    assert (status["started_at"], status["submitted_at"]) == ("2026-01-01T00:00:01", "2026-01-01T00:00:00")
    assert (status["gpus"], status["gpu_seconds"], status["progress"]) == ([3], 8.0, {"step": 1, "total": 3})
    assert "ended_at" not in status
    ended = summary("a", [DONE, DONE])
    assert (ended["ended_at"], ended["gpu_seconds"]) == ("2026-01-01T00:00:09", 16.0)


def test_last_lines_are_of_a_few_elements_that_ended_badly_first() -> None:
    bad = failed(log_tail="Traceback\nboom\n")
    status = summary("a", [{**DONE, "log_tail": "fine\n"}, bad])
    assert status["log_tail"] == "[1/2] Traceback\n[1/2] boom\n[0/2] fine\n"
    assert summary("a", [bad] * 50)["log_tail"].count("boom") == MOST_TAILS


def test_an_array_of_one() -> None:
    assert summary("a", [DONE])["message"] == "of 1 elements 1 succeeded"


def test_an_array_ends_like_the_element_that_failed_first_in_time() -> None:
    times = [f"2026-11-28T10:0{minute}:00+00:00" for minute in range(4)]
    elements = [
        failed("out_of_memory", "gone", ended_at=times[3]),
        failed("user_error", "a module is missing", kind="missing_module", remedy="Add it.", ended_at=times[1]),
        failed("lost", "its supervisor is gone"),
    ]
    found = summary("array", elements)
    assert (found["reason"], found["kind"], found["remedy"]) == ("user_error", "missing_module", "Add it.")
    assert "1 (missing_module: a module is missing)" in found["message"]
