from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterFaultError
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.job_log import JobLog

QUEUED = JobStatus("j", JobState.QUEUED, attempt=1, queue_place=3, message="1 GPU is free, it needs 2")
RUNNING = JobStatus("j", JobState.RUNNING, attempt=1, host="gpu1", gpus=(0, 1))
SUCCEEDED = JobStatus("j", JobState.SUCCEEDED, attempt=1)


class Told:
    """A task's log, a clock, and a job log that goes on in another process before each thing it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.memory: dict[str, Any] = {}
        self.time = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    def later(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def __call__(self, act: Callable[[JobLog], Any]) -> Any:
        job_log = JobLog(self, job_id="j", cluster="me@gpu1", memory=self.memory, now=lambda: self.time)
        result = act(job_log)
        self.memory = json.loads(json.dumps(job_log.memory, allow_nan=False))
        return result

    def tell(self, *statuses: JobStatus) -> None:
        for status in statuses:
            self(operator.methodcaller("tell", status))

    def new(self) -> list[str]:
        events = [event for event, _ in self.lines]
        self.lines.clear()
        return events


@pytest.fixture
def told() -> Told:
    return Told()


def steps(step: Any, *, attempt: int = 1, state: JobState = JobState.RUNNING, **more: Any) -> JobStatus:
    return JobStatus("j", state, attempt=attempt, progress={"step": step, "total": 100, **more})


def test_life_is_told_once(told: Told) -> None:
    started = replace(RUNNING, submitted_at="2026-01-01T00:00:00+00:00", started_at="2026-01-01T00:00:02.5+00:00")
    told.tell(QUEUED, QUEUED, started, started, SUCCEEDED)
    told(lambda job_log: job_log.tell_success(replace(SUCCEEDED, gpu_seconds=12.341)))
    waits = {"job_id": "j", "place": 3, "why": "1 GPU is free, it needs 2"}
    runs = {"job_id": "j", "attempt": 1, "host": "gpu1", "gpus": [0, 1], "waited": 2.5}
    end = {"job_id": "j", "cluster": "me@gpu1", "duration": None, "gpu_seconds": 12.34, "peak_memory_bytes": None}
    assert told.lines == [
        ("GPU job waits for its turn", waits),
        ("GPU job runs", runs),
        ("GPU job succeeded", end),
    ]


def test_every_attempt_is_told(told: Told) -> None:
    told.tell(QUEUED, RUNNING, replace(QUEUED, attempt=2, queue_place=9), replace(RUNNING, attempt=2))
    assert told.new() == ["GPU job waits for its turn", "GPU job runs"] * 2


FIRST: Any = {
    "attempt": 1,
    "reason": "preempted",
    "kind": "preempted",
    "message": "Slurm took its nodes",
    "started_at": "2026-01-01T00:00:00+00:00",
    "ended_at": "2026-01-01T03:02:00+00:00",
    "host": "node7",
}
WHY = "attempt 1 was preempted after 3 h 2 min on node7"


def test_an_attempt_that_follows_by_itself_is_one_line_however_long_it_waits(told: Told) -> None:
    second = JobStatus("j", JobState.QUEUED, attempt=2, log_attempt=1, attempts=(FIRST,), recovered={"preempted": 1})
    told.tell(QUEUED, RUNNING)
    told.new()
    told.tell(replace(second, attempt=1, log_attempt=0, message=f"{WHY}; attempt 2 follows"))
    for seconds in range(300, 0, -1):
        told.tell(replace(second, message=f"{WHY}; attempt 2 begins in {seconds} s"))
        told.later(1)
    told.tell(replace(second, message=WHY))
    assert told.lines == [
        ("GPU job goes on in attempt 2", {"job_id": "j", "why": f"{WHY}; attempt 2 follows"}),
    ]
    # If it then waits for long, that is told as of any other.
    queued = replace(second, queue_place=2, message="it needs 2 GPUs, 1 is free")
    told.tell(replace(second, message="it was just put into the queue"), queued)
    assert len(told.lines) == 1
    told.later(31)
    told.tell(queued, queued)
    told.tell(replace(second, state=JobState.RUNNING, host="node8"))
    assert told.new()[1:] == ["GPU job waits for its turn", "GPU job runs"]
    # Nobody looked while it ended and waited twice.
    past: Any = (FIRST, {**FIRST, "attempt": 2, "kind": "gpu_fault", "message": ""}, {"attempt": 3, "reason": "lost"})
    told.tell(replace(second, state=JobState.RUNNING, attempt=4, attempts=past, host="node9"))
    assert [(event, fields.get("why")) for event, fields in told.lines] == [
        ("GPU job goes on in attempt 3", "attempt 2 ended after 3 h 2 min on node7 (gpu_fault)"),
        ("GPU job goes on in attempt 4", "attempt 3 ended (lost)"),
        ("GPU job runs", None),
    ]


def test_progress_of_an_earlier_attempt_is_not_told_again(told: Told) -> None:
    told.tell(RUNNING, steps(40))
    told.new()
    told.later(100)
    told.tell(replace(steps(40, attempt=2), log_attempt=1), replace(steps(38, attempt=2), log_attempt=1))
    assert told.new() == ["GPU job runs", "GPU job progress: step 38 of 100 (38%)"]


def test_unknown_state_is_told_when_its_reason_changes(told: Told) -> None:
    unknown = JobStatus("j", JobState.UNKNOWN, message="it runs on gpu2, this is gpu1")
    told.tell(unknown, unknown, replace(unknown, message="its records cannot be read"))
    assert [fields["why"] for _, fields in told.lines] == [unknown.message, "its records cannot be read"]


def test_a_queue_that_moves_does_not_flood_the_log(told: Told) -> None:
    for place in range(100, 0, -1):
        told.tell(replace(QUEUED, queue_place=place, message=f"{place} are ahead"))
        told.later(1)
    assert [fields["place"] for _, fields in told.lines] == [100, 70, 40, 10]
    # What was held back is told later.
    told.later(30)
    told.tell(replace(QUEUED, queue_place=1))
    assert told.lines[-1][1]["place"] == 1


def test_a_new_reason_and_the_first_place_are_told_at_once(told: Told) -> None:
    told.tell(replace(QUEUED, queue_place=None, message="it was just put into the queue"))
    told.tell(QUEUED, replace(QUEUED, message="2 GPUs are kept for jobs ahead"))
    assert [fields.get("place") for _, fields in told.lines] == [None, 3, 3]


def test_a_clock_that_was_put_back_does_not_silence_the_queue(told: Told) -> None:
    told.tell(QUEUED)
    told.later(-86400)
    told.tell(replace(QUEUED, queue_place=2))
    assert len(told.lines) == 2


def test_progress_is_a_line_now_and_then(told: Told) -> None:
    told.tell(RUNNING)
    told.new()
    for step in range(20):
        told.tell(steps(step, loss=0.5))
        told.later(1)
    assert told.lines[-1] == (
        "GPU job progress: step 15 of 100 (15%), 1 step/s, 1 min 25 s left, loss 0.5",
        {"job_id": "j"},
    )
    assert [event.split(",")[0].removeprefix("GPU job progress: ") for event in told.new()] == [
        "step 0 of 100 (0%)",
        "step 5 of 100 (5%)",
        "step 10 of 100 (10%)",
        "step 15 of 100 (15%)",
    ]
    # What was held back is told when the same is told again.
    told.later(5)
    told.tell(steps(19, loss=0.5), steps(19, loss=0.5))
    assert len(told.new()) == 1


def test_last_progress_is_shown_at_the_end(told: Told) -> None:
    told.tell(RUNNING, steps(98))
    told.new()
    told.later(1)
    told.tell(steps(99), steps(100, state=JobState.SUCCEEDED), steps(100, state=JobState.SUCCEEDED))
    # Nobody knows when the last step was.
    assert told.new() == ["GPU job progress: step 100 of 100 (100%)"]


def test_progress_that_was_shown_is_not_shown_again_at_the_end(told: Told) -> None:
    told.tell(RUNNING, steps(40))
    told.later(100)
    told.tell(steps(40), steps(40, state=JobState.FAILED))
    assert told.new() == ["GPU job runs", "GPU job progress: step 40 of 100 (40%)"]


def test_progress_begins_anew_with_a_new_attempt_and_an_older_step(told: Told) -> None:
    told.tell(steps(0))
    told.later(10)
    told.tell(steps(50))
    told.later(10)
    told.tell(steps(20))
    told.later(10)
    told.tell(steps(30), steps(30, attempt=2), steps(31, attempt=2))
    progress = [event.removeprefix("GPU job progress: ") for event in told.new() if "progress" in event]
    assert progress == [
        "step 0 of 100 (0%)",
        "step 50 of 100 (50%), 5 steps/s, 10 s left",
        "step 20 of 100 (20%)",
        "step 30 of 100 (30%), 1 step/s, 1 min 10 s left",
        "step 30 of 100 (30%)",
    ]


def test_odd_progress_is_remembered_as_json(told: Told) -> None:
    odd = steps(math.nan, loss=math.nan, note="\ud800")
    told.tell(odd)
    told.later(10)
    told.tell(odd, replace(odd, progress={"x": None}))
    assert told.new() == ["GPU job runs", "GPU job progress: loss NaN"]


def test_outage_is_told_ever_less_often(told: Told) -> None:
    gone = GpuClusterConnectionError("no route")
    for second in range(0, 3600, 10):
        assert told(lambda job_log: job_log.tell_outage(gone)) == second
        told.later(10)
    assert [fields["unreachable_s"] for _, fields in told.lines] == [0, 30, 60, 120, 240, 480, 960, 1920]
    told.lines.clear()
    for _ in range(2):
        told(lambda job_log: job_log.tell_reached())
        assert told.memory == {}
    assert told.lines == [
        ("GPU cluster is reached again", {"job_id": "j", "cluster": "me@gpu1", "unreachable_s": 3600})
    ]
    assert told(lambda job_log: job_log.tell_outage(gone)) == 0
    assert told.new()[-1] == "GPU cluster cannot be reached; the job is not affected, waiting on"


def test_a_fault_of_the_disk_is_called_one(told: Told) -> None:
    told(lambda job_log: job_log.tell_outage(GpuClusterFaultError("the disk is full")))
    assert told.new() == ["GPU cluster has a fault that passes; the job is not affected, waiting on"]


def test_what_keeps_progress_from_being_known_is_told_once(told: Told) -> None:
    spoilt = replace(RUNNING, notes=("no progress is shown: x is a pipe, and not a file",))
    told.tell(RUNNING, spoilt, spoilt, RUNNING, spoilt)
    assert told.new()[1:] == ["GPU job: no progress is shown: x is a pipe, and not a file"] * 2


def test_no_outage_is_no_news(told: Told) -> None:
    told(lambda job_log: job_log.tell_reached())
    assert told.lines == []


def test_memory_that_was_given_is_left_as_it_is(told: Told) -> None:
    memory: dict[str, Any] = {}
    JobLog(told, job_id="j", cluster="me@gpu1", memory=memory).tell(RUNNING)
    assert memory == {}


# -- idle jobs ---------------------------------------------------------------------------------------------------


def idle(level: str, *, attempt: int = 1, **more: Any) -> JobStatus:
    note: Any = {
        "level": level,
        "since": "2026-01-01T00:00:00+00:00",
        "idle_s": 900.2 if level == "half" else 1800.4,
        "percent": 0.412,
        "min_percent": 5.0,
        "window_s": 1800.0,
        "on_idle": "cancel",
        **more,
    }
    return replace(RUNNING, attempt=attempt, idle=note)


USED = "GPU job is idle: its GPU use was 0.412 % in the mean for"
AGAIN = "GPU job is idle no more: it computes again, or shows other life"


def test_an_idle_job_is_told_once_for_each_level_and_when_it_computes_again(told: Told) -> None:
    told.tell(RUNNING, idle("half"), idle("half", idle_s=901.0), idle("whole"), idle("whole"))
    assert told.new() == [
        "GPU job runs",
        f"{USED} 15 min, less than min_gpu_utilization=5; if that goes on for another 15 min, it is ended, since "
        "on_idle is 'cancel'",
        f"{USED} 30 min, less than min_gpu_utilization=5; it is ended now, since on_idle is 'cancel'",
    ]
    told.tell(RUNNING, RUNNING, idle("half", on_idle="warn"))
    again, half = told.new()
    assert again == AGAIN
    assert half.endswith("less than min_gpu_utilization=5; it is left to run, since on_idle is 'warn'")


def test_each_attempt_is_idle_on_its_own(told: Told) -> None:
    told.tell(idle("half"), replace(RUNNING, attempt=2), idle("half", attempt=2))
    assert [line.partition(":")[0] for line in told.new()] == ["GPU job runs", "GPU job is idle"] * 2


def test_an_end_for_idleness_is_a_warning_if_nobody_has_seen_the_whole_window(told: Told) -> None:
    ended = JobStatus("j", JobState.FAILED, reason="idle", attempt=1, message="its GPU use was 0 % in the mean")
    told.tell(idle("half"), ended, ended)
    assert told.new()[2:] == ["GPU job was idle, and is ended: its GPU use was 0 % in the mean"]
    told.memory.clear()
    told.tell(idle("whole"), ended)
    assert len(told.new()) == 2


def test_advice_follows_the_end(told: Told) -> None:
    asked: Any = {"memory_bytes": 64 << 30}
    ended = replace(SUCCEEDED, asked=asked, peak_memory_bytes=3 << 30, seconds={"running": 600.0})
    told(lambda job_log: job_log.tell_advice(ended))
    advice = "asked for 64 GiB of host memory, used 3 GiB; memory='4G' would do"
    assert told.lines == [(f"GPU job advice: {advice}", {"job_id": "j"})]
