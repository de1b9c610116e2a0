"""A task that waits for its job waits on through faults of the cluster's disk, and loses no line of output."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterFaultError, NoSpaceError
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.watch.job_watch import JobWatch
from tests.harness.jobs import submit, wait
from tests.harness.leftovers import kill_everything_under
from tests.harness.small_disk import fill, small_disk


class Lines:
    """A task's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(event)

    warning = info


@pytest.fixture
def small(
    cluster_settings: ClusterSettings, cluster_folder: Path, ssh_connect: Callable[..., paramiko.SSHClient]
) -> Iterator[tuple[Cluster, Path]]:
    """Return a cluster whose root is on a small disk, and that disk."""
    with small_disk(cluster_folder / "disk", 8192) as disk:
        settings = dataclasses.replace(cluster_settings, root_dir=str(disk / "ml-jobs"))
        with Cluster(settings, ssh_connect) as cluster:
            yield cluster, disk
        kill_everything_under(cluster_folder)


def test_a_full_disk_ends_no_wait(small: tuple[Cluster, Path], tmp_path: Path) -> None:
    cluster, disk = small
    gate = tmp_path / "gate"
    handle = submit(cluster, f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo two").handle
    other = submit(cluster, "sleep 1000").handle
    for job in (handle, other):
        wait(cluster, job.job_id, JobState.RUNNING)
    fill(disk)
    log = Lines()
    watch = JobWatch(cluster, handle, log=log, reader="task")
    while "one" not in log.lines:
        assert watch.look().state is JobState.RUNNING
    # The second look acknowledges what was shown, and that cannot be written down.
    assert watch.look().state is JobState.RUNNING
    with pytest.raises(NoSpaceError, match=r"no space left on the disk of .* remove files there"):
        submit(cluster, "true")
    (status,) = cluster.cancel([other.job_id], requested_by="ann", wait_s=5)
    assert (status.state, status.message) == (JobState.CANCELLED, "cancelled by ann")
    for program in (disk / "ml-jobs" / ".gpu-run").glob("*.pyz"):
        # A new version of the provider would have to bring its own.
        program.unlink()
    fill(disk)
    with pytest.raises(GpuClusterFaultError, match="could not be written to"):
        cluster.retrying_for(0).statuses([handle.job_id])
    os.unlink(disk / "filler")
    gate.touch()
    watch.wait(pause=lambda seconds: None, longest_pause_s=0.1, unreachable_timeout_s=0)
    assert [line for line in log.lines if line in ("one", "two")] == ["one", "two"]


def test_a_host_that_cannot_start_a_program_now_ends_no_wait(
    cluster_settings: ClusterSettings, ssh_connect: Callable[..., paramiko.SSHClient], tmp_path: Path
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'fork: Cannot allocate memory' >&2\nexit 254\n")
    python.chmod(0o755)
    settings = dataclasses.replace(cluster_settings, python=str(python))
    with Cluster(settings, ssh_connect, retry_for_s=0) as cluster:
        with pytest.raises(GpuClusterFaultError, match="Cannot allocate memory"):
            cluster.statuses(["x"])
        with pytest.raises(GpuClusterFaultError, match="has no memory left"):
            cluster.capacity()
