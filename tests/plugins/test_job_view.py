"""What the page of a job says about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_gpu_cluster.connection.words import readable
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.job_lookup import JobAnswer
from airflow_provider_gpu_cluster.plugins.job_view import job_view

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
    log_tail="epoch 1\n",
    progress={"step": 40, "total": 100, "loss": 0.3123456789},
)
NOW = datetime(2026, 1, 2, 4, 5, 30, tzinfo=timezone.utc)


def facts(status: JobStatus | None, error: str | None = None) -> dict[str, str]:
    return dict(job_view(HANDLE, JobAnswer(status, error), NOW)["facts"])


def test_a_running_job_with_everything_that_is_known() -> None:
    view = job_view(HANDLE, JobAnswer(RUNNING), NOW)
    assert (view["state"], view["asked"], view["final"], view["error"]) == ("RUNNING", True, False, None)
    assert view["progress"] == {
        "step": 40,
        "total": 100,
        "label": "40 of 100",
        "values": [["loss", "0.312346"]],
    }
    assert facts(RUNNING) == {
        "Attempt": "2",
        "GPUs": "2 (indexes 1, 3)",
        "Host": "node7",
        "Submitted": "2026-01-02 03:04:05 UTC",
        "Started": "2026-01-02 03:05:00 UTC",
        "Duration": "1 h 00 min 30 s",
        "GPU-seconds": "7,200.5",
        "Peak memory": "3.0 GiB",
        "Log size": "2.0 KiB",
        "Directory": "/home/ml/dag-train-1",
        "Connection": "lab",
        "Engine": "host",
    }


def test_a_waiting_job_says_where_and_why() -> None:
    status = JobStatus("dag-train-1", JobState.QUEUED, queue_place=3, message="2 GPUs wanted, 1 is free")
    view = job_view(HANDLE, JobAnswer(status), NOW)
    assert view["headline"] == "Place 3 in the cluster's queue. 2 GPUs wanted, 1 is free"
    assert "Duration" not in facts(status)


def test_a_job_that_ended_badly_says_why() -> None:
    status = replace(
        RUNNING,
        state=JobState.FAILED,
        reason="gpu_out_of_memory",
        message="CUDA out of memory",
        exit_code=1,
        ended_at="2026-01-02T03:05:02.5+00:00",
    )
    view = job_view(HANDLE, JobAnswer(status), NOW)
    assert view["final"]
    assert view["headline"] == "Reason: gpu out of memory. CUDA out of memory"
    assert facts(status)["Duration"] == "2.5 s"
    assert facts(status)["Exit code"] == "1"


def test_a_cluster_that_said_nothing() -> None:
    view = job_view(HANDLE, JobAnswer(error="no route to lab"), NOW)
    assert (view["state"], view["asked"], view["error"]) == ("UNKNOWN", False, "no route to lab")
    assert facts(None)["Directory"] == HANDLE.job_dir
    assert job_view(HANDLE, JobAnswer(), NOW)["state"] == "ASKING"


@pytest.mark.parametrize(
    "progress",
    [
        {"loss": 0.5},
        {"step": "4", "total": 8},
        {"step": 1, "total": 0},
        {"step": float("nan"), "total": 5},
        {"step": 10**400, "total": 10**400},
        {"step": True, "total": 5},
    ],
)
def test_progress_without_a_measure_is_shown_as_text(progress: dict[str, object]) -> None:
    shown = job_view(HANDLE, JobAnswer(replace(RUNNING, progress=progress)), NOW)["progress"]
    assert shown["total"] is None
    assert [name for name, _ in shown["values"]] == list(progress)


def test_progress_can_be_anything() -> None:
    whatever: tuple[Any, ...] = ({}, [1, 2], "half", None)
    for progress in whatever:
        status = replace(RUNNING, progress=progress)
        assert job_view(HANDLE, JobAnswer(status), NOW)["progress"] is None
    wide = {f"metric {i}": "x" * 5000 for i in range(1000)}
    values = job_view(HANDLE, JobAnswer(replace(RUNNING, progress=wide)), NOW)["progress"]["values"]
    assert len(values) == 20
    assert max(len(text) for _, text in values) == 200


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\n  text\ttab", "plain\n  text\ttab"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x", "red x"),
        (" 10%\r 50%\r100%\ndone\r\n", "100%\ndone\n"),
        ("50%\r", "50%"),
        ("nul\x00 bell\x07", "nul\N{REPLACEMENT CHARACTER} bell\N{REPLACEMENT CHARACTER}"),
        ("half \udce2 character", "half ? character"),
    ],
)
def test_terminal_output_becomes_readable(raw: str, shown: str) -> None:
    assert readable(raw) == shown


def test_the_kind_of_an_end_and_what_to_do_about_it() -> None:
    ended = replace(
        RUNNING,
        state=JobState.FAILED,
        reason="user_error",
        kind="missing_module",
        message="a module of its is missing",
        remedy="Add the package to requirements=.",
        memory_limit_bytes=4 * 1024**3,
    )
    view = job_view(HANDLE, JobAnswer(ended), NOW)
    assert view["headline"] == "Reason: user error, missing module. A module of its is missing"
    assert view["remedy"] == "Add the package to requirements=."
    assert facts(ended)["Peak memory"] == "3.0 GiB of 4.0 GiB"


def test_what_a_job_has_used_and_what_would_help() -> None:
    gpu: Any = {"mean_percent": 4.0, "peak_percent": 97.0, "peak_memory_bytes": 60 << 30, "memory_bytes": 80 << 30}
    usage: Any = {"source": "nvml", "samples": 99, "gpus": [gpu, gpu], "gpu_mean_percent": 4.0}
    usage |= {"gpu_peak_percent": 97.0, "energy_j": 9e6, "cpus_mean": 2.04, "cpus": 16}
    seconds: Any = {"queued": 90.0, "running": 3600.0, "building": 0.0, "idle": 1800.0}
    ended = replace(RUNNING, state=JobState.SUCCEEDED, usage=usage, seconds=seconds)
    view = job_view(HANDLE, JobAnswer(ended), NOW)
    labels = ("GPU use", "GPU memory", "Energy", "Processors", "Of the time")
    assert [fact for fact in view["facts"] if fact[0] in labels] == [
        ["GPU use", "4 % in the mean, 97 % at most"],
        ["GPU memory", "60.0 GiB, 60.0 GiB at most, of 80.0 GiB each"],
        ["Energy", "2.5 kWh"],
        ["Processors", "2.0 of 16 busy in the mean"],
        ["Of the time", "1 min 30 s in the queue, 30 min 00 s with idle GPUs"],
    ]
    (sentence,) = view["advice"]
    assert sentence.startswith("GPU use was 4 % in the mean; the job waited")
    assert facts(replace(ended, usage={"why_not": "no driver"}))["GPU use"] == "not measured: no driver"


def test_an_idle_job_says_so_while_it_runs() -> None:
    note: Any = {"level": "half", "idle_s": 900.0, "percent": 0.4, "min_percent": 5.0, "window_s": 1800.0}
    note["on_idle"] = "warn"
    view = job_view(HANDLE, JobAnswer(replace(RUNNING, idle=note)), NOW)
    assert view["idle"].startswith("This job is idle: its GPU use was 0.4 % in the mean for 15 min, less than min_")
    assert view["idle"].endswith("; it is left to run, since on_idle is 'warn'.")
    assert job_view(HANDLE, JobAnswer(replace(RUNNING, idle=note, state=JobState.FAILED)), NOW)["idle"] == ""
