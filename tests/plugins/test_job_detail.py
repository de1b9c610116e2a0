"""What is told of a job, whatever is known of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.progress import Pace
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.job_detail import Known, Rights, job_detail
from airflow_provider_gpu_cluster.plugins.job_model import JobDetail
from airflow_provider_gpu_cluster.plugins.progress_view import progress_view, seconds_left

HANDLE = JobHandle("dag-train-1", "lab", "/home/ml/dag-train-1", "host", "2026-01-02T03:04:05+00:00", 2)
RUNNING = JobStatus(
    "dag-train-1",
    JobState.RUNNING,
    attempt=2,
    started_at="2026-01-02T03:05:00+00:00",
    gpus=(1, 3),
    gpu_seconds=7200.5,
    peak_memory_bytes=3 * 1024**3,
    host="node7",
    log_bytes=2048,
    progress={"step": 40, "total": 100, "loss": 0.3123456789},
)
NOW = datetime(2026, 1, 2, 4, 5, 0, tzinfo=timezone.utc)
DESCRIPTION: Any = {
    "spec": {
        "entry_script": "train.py",
        "script_args": ["--fast", 1],
        "gpus": 2,
        "nodes": 2,
        "cpus": 4,
        "gpu_type": None,
    },
    "script": "#!/bin/bash\n",
    "code": [{"place": "code", "source": "git+https://x/y", "commit": "c0ffee"}],
    "env_names": ["SEED"],
    "attempts": [
        {"attempt": 1, "state": "FAILED", "reason": "preempted", "started_at": "2026-01-02T03:04:10+00:00"},
        {"attempt": 2, "state": "RUNNING"},
    ],
    "acts": [{"kind": "act", "job_id": "x", "at": "2026-01-02T03:04:05+00:00", "act": "submit", "by": "ada"}],
    "problem": "a record of it cannot be read",
}


def told(status: JobStatus | None = RUNNING, *, read_log: bool = True, handle: JobHandle = HANDLE, **known: Any) -> Any:
    detail = job_detail(handle, Known(status, **known), Rights(read_log=read_log))
    JobDetail.model_validate(detail)
    json.dumps(detail, allow_nan=False).encode()
    return detail


def test_a_running_job_with_everything_that_is_known() -> None:
    detail = told(
        description=DESCRIPTION, as_of=NOW, seconds_left=5.0, earlier=[{"job_id": "before", "state": "FAILED"}]
    )
    assert detail["progress"] == {
        "step": 40,
        "total": 100,
        "label": "40 of 100",
        "values": {"loss": 0.3123456789},
        "seconds_left": 5.0,
    }
    assert (detail["command"], detail["gpu_count"], detail["as_of"]) == ("train.py --fast 1", 4, NOW.isoformat())
    assert detail["resources"]["asked"] == {"gpus": 2, "nodes": 2, "cpus": 4}
    assert detail["resources"]["used"] == {"gpu_seconds": 7200.5, "peak_memory_bytes": 3 << 30}
    assert [(one["attempt"], one["state"], one["reason"], one["host"]) for one in detail["attempts"]] == [
        (1, "FAILED", "preempted", None),
        (2, "RUNNING", None, "node7"),
    ]
    assert detail["acts"][0]["by"] == "ada"
    assert detail["notes"] == ["a record of it cannot be read"]
    assert detail["earlier"] == [
        {"job_id": "before", "conn_id": None, "state": "FAILED", "attempt": None, "submitted_at": None}
    ]


def test_each_attempt_names_the_cluster_that_has_its_log() -> None:
    past: Any = (
        {"attempt": 1, "conn_id": "gpu01", "reason": "preempted"},
        {"attempt": 2, "conn_id": "lab", "reason": "preempted"},
    )
    # The first was taken back here before it ran there.
    described = {"attempts": [{"attempt": 1, "state": "CANCELLED", "reason": "cancelled"}, {"attempt": 2}]}
    attempts = told(replace(RUNNING, attempt=3, attempts=past), description=described)["attempts"]
    assert [(one["attempt"], one["conn_id"], one["reason"]) for one in attempts] == [
        (1, "gpu01", "preempted"),
        (2, "lab", "preempted"),
        (3, "lab", None),
    ]


def test_a_waiting_job_says_where_since_when_and_why() -> None:
    status = JobStatus(
        "dag-train-1",
        JobState.QUEUED,
        queue_place=3,
        message="2 GPUs wanted, 1 is free",
        submitted_at="2026-01-02T03:04:05+00:00",
        expected_start="2026-01-02T05:00:00+00:00",
    )
    detail = told(status)
    assert detail["headline"] == "Place 3 in the cluster's queue. 2 GPUs wanted, 1 is free"
    assert detail["queue"] == {
        "place": 3,
        "since": "2026-01-02T03:04:05+00:00",
        "expected_start": "2026-01-02T05:00:00+00:00",
        "why": "2 GPUs wanted, 1 is free",
    }
    past: Any = {"attempt": 1, "ended_at": "2026-01-02T04:00:00+00:00"}
    assert told(replace(status, attempts=(past,)))["queue"]["since"] == "2026-01-02T04:00:00+00:00"
    assert told()["queue"] is None


def test_the_kind_of_an_end_and_what_to_do_about_it() -> None:
    ended = replace(
        RUNNING,
        state=JobState.FAILED,
        reason="user_error",
        kind="missing_module",
        message="a module of its is missing",
        remedy="Add the package to requirements=.",
    )
    detail = told(ended)
    assert detail["is_final"]
    assert detail["headline"] == "Reason: user error, missing module. A module of its is missing"
    assert detail["remedy"] == "Add the package to requirements=."
    # What the verdict quotes of the job's output is for those who may read its log.
    without = told(ended, read_log=False, description=DESCRIPTION)
    assert without["headline"] == "Reason: user error, missing module."
    assert "module of its" not in json.dumps(without)
    assert (without["progress"], without["message"], without["metrics"]) == (None, None, None)


def test_a_cluster_that_said_nothing() -> None:
    detail = told(None, error="no route to lab", error_since=NOW)
    assert (detail["state"], detail["error"], detail["error_since"]) == ("UNKNOWN", "no route to lab", NOW.isoformat())
    assert (detail["headline"], detail["job_dir"]) == ("", HANDLE.job_dir)
    assert told(None)["headline"] == "The cluster has not answered yet."
    row = {"state": "SUCCEEDED", "attempt": 1, "ended_at": "2026-01-02T04:00:00+00:00", "metrics": {"loss": 0.1}}
    known = told(None, error="no route to lab", row=row)
    assert (known["state"], known["is_final"], known["metrics"]) == ("SUCCEEDED", True, {"loss": 0.1})
    assert told(None, row={"state": "odd"})["state"] == "UNKNOWN"


def test_an_array_counts_its_elements() -> None:
    status = replace(RUNNING, elements=((JobState.RUNNING, None), (JobState.FAILED, "user_error")))
    detail = told(status, handle=replace(HANDLE, array_size=2))
    assert detail["array"] == {"size": 2, "counts": {"RUNNING": 1, "FAILED": 1}, "parts": None}
    assert detail["elements"] == [["RUNNING", None], ["FAILED", "user_error"]]


@pytest.mark.parametrize(
    "progress",
    [
        {"loss": 0.5},
        {"step": "4", "total": 8},
        {"step": 1, "total": 0},
        {"step": float("nan"), "total": 5},
        {"step": 10**400, "total": 10**400},
        {"step": True, "total": 5},
        {"lone \ud800 half": "\ud800", "\u202egnp.exe": "\x1b[31m"},
    ],
)
def test_progress_without_a_measure_is_shown_as_it_is(progress: dict[str, Any]) -> None:
    shown = told(replace(RUNNING, progress=progress))["progress"]
    assert shown["total"] is None
    assert len(shown["values"]) == len(progress)
    assert "\u202e" not in json.dumps(shown, ensure_ascii=False)


def test_progress_can_be_anything() -> None:
    whatever: tuple[Any, ...] = ({}, [1, 2], "half", None)
    for progress in whatever:
        assert progress_view(progress, None) is None
    wide = {f"metric {i}": "x" * 5000 for i in range(1000)}
    values = told(replace(RUNNING, progress=wide))["progress"]["values"]
    assert len(values) == 200
    assert max(map(len, values.values())) < 300
    assert told(replace(RUNNING, progress={"loss": float("nan")}))["progress"]["values"] == {"loss": "NaN"}


@pytest.mark.parametrize(
    ("status", "pace", "left_s"),
    [
        # 40 of 100 in an hour, in the first attempt.
        (replace(RUNNING, attempt=1), None, 5400.0),
        # A later attempt may have begun anywhere.
        (RUNNING, None, None),
        (RUNNING, Pace(0.0, 30.0, 40.0, 100.0), 600.0),
        (replace(RUNNING, state=JobState.SUCCEEDED), Pace(0.0, 30.0, 40.0, 100.0), None),
        (replace(RUNNING, progress={"step": 0, "total": 5}), None, None),
        (replace(RUNNING, progress={"step": 9, "total": 5}), None, None),
        (replace(RUNNING, progress=None), None, None),
    ],
)
def test_time_left_is_by_the_pace_that_was_seen(status: JobStatus, pace: Pace | None, left_s: float | None) -> None:
    assert seconds_left(status, pace, NOW) == (None if left_s is None else pytest.approx(left_s))


def test_a_clock_that_is_behind_the_clusters_leads_to_no_estimate() -> None:
    assert seconds_left(replace(RUNNING, attempt=1), None, NOW - timedelta(days=1)) is None


def test_an_idle_job_says_so_while_it_runs() -> None:
    note: Any = {"level": "half", "idle_s": 900.0, "percent": 0.4, "min_percent": 5.0, "window_s": 1800.0}
    note["on_idle"] = "warn"
    detail = told(replace(RUNNING, idle=note))
    assert detail["idle"].startswith("This job is idle: its GPU use was 0.4 % in the mean for 15 min, less than min_")
    assert detail["idle"].endswith("; it is left to run, since on_idle is 'warn'.")
    assert told(replace(RUNNING, idle=note, state=JobState.FAILED))["idle"] is None


def test_what_would_help_the_next_job() -> None:
    gpu: Any = {"mean_percent": 4.0, "peak_percent": 97.0, "peak_memory_bytes": 60 << 30, "memory_bytes": 80 << 30}
    usage: Any = {"source": "nvml", "samples": 99, "gpus": [gpu, gpu], "gpu_mean_percent": 4.0}
    usage |= {"gpu_peak_percent": 97.0, "energy_j": 9e6, "cpus_mean": 2.04, "cpus": 16}
    seconds: Any = {"queued": 90.0, "running": 3600.0, "building": 0.0, "idle": 1800.0}
    detail = told(replace(RUNNING, state=JobState.SUCCEEDED, usage=usage, seconds=seconds))
    (sentence,) = detail["advice"]
    assert sentence.startswith("GPU use was 4 % in the mean; the job waited")
    used = detail["resources"]["used"]
    assert (used["gpu_peak_memory_bytes"], used["gpu_memory_bytes"], used["run_s"]) == (60 << 30, 80 << 30, 3600.0)
