"""Cancelling: what waits never starts, what runs ends, what has ended stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuJobCancelled
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness.jobs import submit, wait


def test_a_running_job_ends_and_says_who_wanted_it(cluster: Cluster, eventually: Callable[..., Any]) -> None:
    handle = submit(cluster, "sleep 60 & sleep 60").handle
    wait(cluster, handle.job_id, JobState.RUNNING)
    (status,) = cluster.cancel([handle.job_id], requested_by="ada", wait_s=5)
    assert (status.state, status.reason) == (JobState.CANCELLED, "cancelled")
    assert status.message == "cancelled by ada"
    assert isinstance(status.error("x"), GpuJobCancelled)
    eventually(lambda: cluster.capacity()["free_gpus"] == 4)


def test_a_waiting_job_never_starts(cluster: Cluster, tmp_path: Path) -> None:
    blocker = submit(cluster, "sleep 60", gpus=4).handle
    wait(cluster, blocker.job_id, JobState.RUNNING)
    waiting = submit(cluster, f"touch {tmp_path}/started").handle
    (status,) = cluster.cancel([waiting.job_id], requested_by="ada")
    assert (status.state, status.message) == (JobState.CANCELLED, "cancelled by ada before it started")
    cluster.cancel([blocker.job_id], requested_by="ada", wait_s=5)
    after = submit(cluster, "true").handle
    assert wait(cluster, after.job_id).state is JobState.SUCCEEDED
    assert not (tmp_path / "started").exists()
    assert not list(Path(waiting.job_dir).rglob("env.json"))


def test_a_cancel_at_the_moment_of_the_start_is_not_lost(cluster: Cluster) -> None:
    for _ in range(8):
        handle = submit(cluster, "sleep 60").handle
        (status,) = cluster.cancel([handle.job_id], requested_by="ada", wait_s=8)
        assert status.state is JobState.CANCELLED


def test_what_has_ended_stays_as_it_is(cluster: Cluster) -> None:
    handle = submit(cluster, "true").handle
    wait(cluster, handle.job_id)
    for _ in range(2):
        (status,) = cluster.cancel([handle.job_id], requested_by="ada")
        assert status.state is JobState.SUCCEEDED


def test_a_job_that_is_not_there_is_no_fault(cluster: Cluster) -> None:
    (status,) = cluster.cancel(["never-was"], requested_by="ada")
    assert status.state is JobState.LOST
    assert "there is no" in status.message


def test_a_try_after_a_cancel_starts_the_next_attempt(cluster: Cluster) -> None:
    handle = submit(cluster, "sleep 60", job_id="j").handle
    cluster.cancel([handle.job_id], requested_by="ada", wait_s=8)
    assert submit(cluster, "true", job_id="j", request_key="try-2").created
    assert wait(cluster, "j").state is JobState.SUCCEEDED
