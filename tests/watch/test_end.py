"""What a trigger tells the task that it wakes, through Airflow's database and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_provider_gpu_cluster import exceptions
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuJobError,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from tests.harness.deferral import through_the_database

HANDLE = JobHandle("job-1", "gpu_cluster_default", "/jobs/job-1", "host", "2026-01-01T00:00:00+00:00", 2)
FAILED = JobStatus(
    "job-1",
    JobState.FAILED,
    reason="user_error",
    message="exit code 3",
    exit_code=3,
    attempt=2,
    started_at="2026-01-01T00:00:01+00:00",
    ended_at="2026-01-01T00:00:02+00:00",
    gpus=(0, 1),
    progress={"step": 1, "loss": 0.5},
    log_bytes=6,
    log_tail="b\\xffoom\n",
)


@pytest.mark.parametrize(
    "end",
    [
        WatchEnd(HANDLE, FAILED),
        WatchEnd(HANDLE, FAILED, reader="task-1", memory={"running": 1, "queued": [1, None, ""], "shown": None}),
        WatchEnd(job_id="job-1"),
        WatchEnd(),
    ],
)
def test_it_comes_back_as_it_was(end: WatchEnd) -> None:
    value = end.to_json()
    json.dumps(value, allow_nan=False)
    assert WatchEnd.from_json(through_the_database({"event": value})["event"]) == end


def test_numbers_that_a_database_refuses_become_words() -> None:
    status = replace(FAILED, progress={"loss": float("nan"), "x": [1.5, float("-inf")]})
    value = through_the_database({"event": WatchEnd(HANDLE, status).to_json()})["event"]
    json.dumps(value, allow_nan=False)
    back = WatchEnd.from_json(value)
    assert back.status == replace(FAILED, progress={"loss": "NaN", "x": [1.5, "-Infinity"]})


# What can end a watch: everything but the errors of jobs, which are told by their status.
ERRORS = [
    error
    for error in vars(exceptions).values()
    if isinstance(error, type) and issubclass(error, GpuClusterError) and not issubclass(error, GpuJobError)
]


@pytest.mark.parametrize("error_class", ERRORS)
def test_an_error_comes_back_as_its_class(error_class: type[GpuClusterError]) -> None:
    end = WatchEnd(HANDLE, error=error_class("no route to host\nme@gpu1"))
    back = WatchEnd.from_json(through_the_database({"event": end.to_json()})["event"])
    assert type(back.error) is error_class
    assert str(back.error) == "no route to host\nme@gpu1"
    assert back.handle == HANDLE
    assert back.status is None


def test_those_are_the_errors_that_were_meant() -> None:
    assert {GpuClusterConnectionError, GpuClusterAuthenticationError, InvalidJobError} < set(ERRORS)


def test_an_error_of_a_class_that_this_version_does_not_know_is_still_one() -> None:
    value = WatchEnd(HANDLE, error=GpuClusterError("x")).to_json()
    value["error"]["class"] = "FromTheFuture"
    back = WatchEnd.from_json(value)
    assert type(back.error) is GpuClusterError
    assert str(back.error) == "x"
