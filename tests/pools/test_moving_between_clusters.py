"""A job that waits moves between two real clusters, with what it has saved and the recoveries it has used up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness import jobs
from tests.harness.leftovers import kill_everything_under
from tests.harness.moving_job import JOB_ID, MovingJob
from tests.harness.unpacked_program import provide_unpacked

Connect = Callable[..., paramiko.SSHClient]

# Saves, and goes on; the second attempt shows what it has found.
TRAIN = "cat $CHECKPOINT_DIR/* 2>/dev/null; echo step $ATTEMPT > $CHECKPOINT_DIR/$ATTEMPT.pt; touch $JOB_DIR/saved; sleep 600"


@pytest.fixture
def pool(cluster_settings: ClusterSettings, tmp_path: Path) -> Iterator[list[ClusterSettings]]:
    """Return the settings of two clusters with one GPU each."""
    folder = tmp_path / "other"
    provide_unpacked(folder / "ml-jobs")
    first = replace(cluster_settings, conn_id="gpu01", virtual_gpus=1)
    place = {"root_dir": str(folder / "ml-jobs"), "lease_dir": str(folder / "leases")}
    try:
        yield [first, replace(first, conn_id="gpu02", **place)]
    finally:
        kill_everything_under(folder)


@pytest.fixture
def moving(pool: list[ClusterSettings], ssh_connect: Connect, tmp_path: Path) -> Iterator[MovingJob]:
    recover = {"recover": {"preempted": 2}}
    job = MovingJob(pool, lambda number: ssh_connect(), tmp_path / "store.json", command=TRAIN, spec=recover)
    try:
        yield job
    finally:
        job.close()


def hog(cluster: Cluster, job_id: str, **spec: Any) -> None:
    jobs.submit(cluster, "sleep 600", job_id=job_id, gpus=1, time_limit_s=7200.0, **spec)


def at(moving: MovingJob, number: int) -> Path:
    return Path(moving.settings[number].root_dir) / JOB_ID


def test_a_preempted_job_that_waits_again_goes_on_elsewhere(
    moving: MovingJob, eventually: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (moving.members(name) for name in ("gpu01", "gpu02"))
    assert moving.begin_on_first() == "gpu01"
    eventually((at(moving, 0) / "saved").exists)
    hog(first, "hog", priority="high")
    first.interrupt_job(JOB_ID, kind="preempted", requested_by="a test")
    jobs.wait(first, "hog", JobState.RUNNING)
    moved = moving.moved()
    assert moved is not None
    assert (moved.record.conn_id, moved.record.moves) == ("gpu02", 1)
    log = at(moving, 1) / "logs" / "training.log"
    eventually(lambda: log.exists() and "step 1" in log.read_text())
    status = jobs.wait(second, JOB_ID, JobState.RUNNING)
    assert (status.attempt, dict(status.recovered)) == (2, {"preempted": 1})
    assert "attempt 2 goes on from checkpoints/1.pt" in log.read_text()
    # Nothing of it runs or waits on the first any more, and all is there that was.
    assert [one["job_id"] for one in first.jobs()["jobs"]] == ["hog"]
    assert (at(moving, 0) / "outputs" / "checkpoints" / "1.pt").read_text() == "step 1\n"
    said = capsys.readouterr().out
    assert "GPU job moves from gpu01 (expected start in 2 h" in said
    assert "1 file (0.0 MB) brought along in" in said
    # The budget goes on there: one of two was used up.
    second.interrupt_job(JOB_ID, kind="preempted", requested_by="a test")
    eventually(lambda: jobs.wait(second, JOB_ID, JobState.RUNNING).attempt == 3)
    second.interrupt_job(JOB_ID, kind="preempted", requested_by="a test")
    ended = jobs.wait(second, JOB_ID, JobState.FAILED)
    assert (ended.attempt, dict(ended.recovered)) == (3, {"preempted": 2})
    assert [one["act"] for one in first.audit(JOB_ID)["acts"]][-2:] == ["move", "carry"]
