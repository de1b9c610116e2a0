"""The rules of recovery, without any process."""

from __future__ import annotations

from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.records import ExitRecord
from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import NextAttempt, Recovery
from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
from airflow_provider_gpu_cluster.gpu_run.recovery import words
from airflow_provider_gpu_cluster.gpu_run.recovery.policy import Checkpoints, Decision, decide, pause_s

NOTHING_SAVED = Checkpoints(None, False)
SAVED = Checkpoints("checkpoints/step_400.pt", True)
NOW = 1_800_000_000.0


def end(reason: str, *, attempt: int = 1, kind: str | None = None, state: str | None = None) -> ExitRecord:
    lost = protocol.LOST if reason == protocol.REASON_LOST else protocol.FAILED
    record = {
        "attempt": attempt,
        "state": state or lost,
        "reason": reason,
        "message": f"it ended ({reason})",
        "started_at": "2026-11-28T03:00:00.000+00:00",
        "ended_at": "2026-11-28T06:02:00.000+00:00",
        "host": "node7",
        "kind": kind,
    }
    return cast(ExitRecord, {**record, "job_id": "job"})


def decided(
    reason: str,
    before: Recovery | None = None,
    *,
    recover: dict[str, Any] | None = None,
    saved: Checkpoints = NOTHING_SAVED,
    ran_s: float = 3600.0,
    node: str | None = None,
    kind: str | None = None,
    state: str | None = None,
    **spec: Any,
) -> Decision:
    budgets = protocol.DEFAULT_RECOVER if recover is None else recover
    number = before["past"][-1]["attempt"] + 1 if before and before["past"] else 1
    return decide(
        cast(Spec, {"gpus": 1, "recover": budgets, **spec}),
        end(reason, attempt=number, kind=kind, state=state),
        before,
        saved,
        ran_s=ran_s,
        node=node,
        now=NOW,
    )


def following(decision: Decision) -> NextAttempt:
    assert decision.next is not None, decision.why_not
    return decision.next


def chain(*reasons: str, **how: Any) -> tuple[Recovery | None, str]:
    """Return the note of the last attempt of a job that ended for these reasons, and why none followed, if so."""
    before = None
    for reason in reasons:
        decision = decided(reason, before, **how)
        if decision.next is None:
            return None, decision.why_not
        before = decision.next["recovery"]
    return before, ""


@pytest.mark.parametrize(("reason", "times"), protocol.DEFAULT_RECOVER.items())
def test_each_reason_has_its_own_budget(reason: str, times: int) -> None:
    before, _ = chain(*[reason] * times)
    assert before is not None
    assert before["used"] == {reason: times}
    assert before["first"] == 1
    refused = decided(reason, before)
    assert refused.next is None
    assert f"started again {times} times for that reason ({reason})" in refused.why_not


def test_one_budget_leaves_the_others_alone() -> None:
    before, _ = chain("lost", "preempted", "lost", "preempted")
    assert before is not None
    assert before["used"] == {"lost": 2, "preempted": 2}
    assert decided("lost", before).next is None
    assert decided("preempted", before).next is not None


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("user_error", None),
        ("launch_failed", None),
        ("cancelled", protocol.CANCELLED),
        ("time_limit", None),
        ("orphaned", None),
    ],
)
def test_what_has_no_budget_is_not_followed_and_nothing_is_said(reason: str, state: str | None) -> None:
    assert decided(reason, state=state) == Decision(None, "")


def test_a_job_that_must_not_run_again_does_not() -> None:
    for reason in protocol.REASONS:
        assert decided(reason, recover={}) == Decision(None, "")


def test_a_time_limit_lasts_as_long_as_something_is_saved() -> None:
    recover = {"time_limit": protocol.PROGRESS}
    before, _ = chain(*["time_limit"] * 50, recover=recover, saved=SAVED)
    assert before is not None
    assert before["checkpoint"] == "checkpoints/step_400.pt"
    old = Checkpoints("checkpoints/step_400.pt", False)
    assert "saved nothing new" in decided("time_limit", before, recover=recover, saved=old).why_not


def test_more_memory_at_each_out_of_memory() -> None:
    recover = {"out_of_memory": [2, 1.5]}
    first = following(decided("out_of_memory", recover=recover, memory_bytes=1000))
    assert first["memory_bytes"] == 1500
    second = following(decided("out_of_memory", first["recovery"], recover=recover, memory_bytes=1500))
    assert second["memory_bytes"] == 2250
    assert decided("out_of_memory", second["recovery"], recover=recover, memory_bytes=2250).next is None


def test_the_pause_grows_for_the_same_reason_in_a_row() -> None:
    assert [pause_s(streak) for streak in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]
    quick: dict[str, Any] = {"ran_s": 5.0, "saved": SAVED}
    before, _ = chain("preempted", "preempted", "preempted", **quick)
    assert before is not None
    assert before["not_before"] == NOW + 4
    assert following(decided("lost", before, **quick))["recovery"]["not_before"] == NOW + 1
    # One that ran for long has proved that it can.
    assert following(decided("preempted", before, saved=SAVED))["recovery"]["not_before"] == NOW + 1


def test_the_brake_stops_what_ends_in_the_same_way_again_and_again() -> None:
    _, why_not = chain("preempted", "preempted", "preempted", ran_s=5.0)
    assert "3 times in a row within 120 s of its start" in why_not
    assert chain("preempted", "lost", "preempted", "lost", ran_s=5.0)[0] is not None
    assert chain(*["preempted"] * 9, ran_s=5.0, saved=SAVED)[0] is not None
    assert chain(*["preempted"] * 9, ran_s=600.0)[0] is not None


def test_the_brake_is_sooner_where_the_node_may_be_at_fault() -> None:
    assert "twice on node7" in chain("lost", "lost", ran_s=5.0, node="node7")[1]
    assert chain("preempted", "preempted", ran_s=5.0, node="node7")[0] is not None
    before, _ = chain("lost", ran_s=5.0, node="node7")
    assert decided("lost", before, ran_s=5.0, node="node8").next is not None


def test_the_node_of_a_node_failure_is_left_out() -> None:
    before, _ = chain("node_failure", node="node7")
    assert before is not None
    assert before["exclude_nodes"] == ["node7"]
    more = following(decided("preempted", before, node="node8"))["recovery"]
    assert more["exclude_nodes"] == ["node7"]
    more = following(decided("node_failure", before, node="node8"))["recovery"]
    assert more["exclude_nodes"] == ["node7", "node8"]


def test_the_attempts_before_are_told() -> None:
    before, _ = chain("preempted", "lost", saved=SAVED)
    assert before is not None
    assert [(past["attempt"], past["reason"], past["checkpoint"]) for past in before["past"]] == [
        (1, "preempted", "checkpoints/step_400.pt"),
        (2, "lost", "checkpoints/step_400.pt"),
    ]
    many, _ = chain(*["checkpointed"] * 150, saved=SAVED)
    assert many is not None
    assert [past["attempt"] for past in many["past"]] == list(range(51, 151))


def test_it_is_told_in_words() -> None:
    before = following(decided("preempted", ran_s=10_920.0, saved=SAVED))["recovery"]
    said = words.beginning(before)
    assert (
        said
        == "gpu-run: attempt 1 was preempted after 3 h 2 min on node7; attempt 2 goes on from checkpoints/step_400.pt"
    )
    lost = following(decided("lost", ran_s=61.0))["recovery"]
    assert words.beginning(lost) == (
        "gpu-run: attempt 1 was lost after 1 min 1 s on node7 (it ended (lost)); attempt 2 begins without a checkpoint"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min"), (3600, "1 h"), (90_000, "1 d 1 h"), (86_401, "1 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text
