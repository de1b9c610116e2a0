"""A job that waits moves between two real clusters, with what it has saved and the recoveries it has used up."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY
from tests.harness import jobs
from tests.harness.leftovers import kill_everything_under
from tests.harness.moving_job import JOB_ID, MovingJob, move_and_die
from tests.harness.small_disk import small_disk
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd

Connect = Callable[..., paramiko.SSHClient]

# Saves, and goes on; the second attempt shows what it has found.
TRAIN = """
cat $CHECKPOINT_DIR/* 2> /dev/null || true
echo step $ATTEMPT > $CHECKPOINT_DIR/$ATTEMPT.pt
touch $JOB_DIR/saved
sleep 600
"""


@pytest.fixture
def moving(pool: list[ClusterSettings], ssh_connect: Connect, tmp_path: Path) -> Iterator[MovingJob]:
    recover = {"recover": {"preempted": 2}}
    ports: dict[int, int] = {}
    store = tmp_path / "store.json"
    job = MovingJob(
        pool, lambda number: ssh_connect(ports.get(number)), store, ports=ports, command=TRAIN, spec=recover
    )
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


# -- faults ------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(moving: MovingJob, eventually: Callable[..., Any]) -> MovingJob:
    """Return a job that has saved something on the first cluster, and waits there again."""
    assert moving.begin_on_first() == "gpu01"
    first = moving.members("gpu01")
    eventually((at(moving, 0) / "saved").exists)
    hog(first, "hog", priority="high")
    first.interrupt_job(JOB_ID, kind="preempted", requested_by="a test")
    jobs.wait(first, "hog", JobState.RUNNING)
    return moving


def alive(moving: MovingJob) -> list[str]:
    """Return the clusters on which the job waits or runs."""
    return [
        one.conn_id
        for one in moving.settings
        if any(job["job_id"] == JOB_ID for job in moving.members(one.conn_id).jobs()["jobs"])
    ]


def has_its_checkpoint(moving: MovingJob, conn_id: str) -> bool:
    number = [one.conn_id for one in moving.settings].index(conn_id)
    return (at(moving, number) / "outputs" / "checkpoints" / "1.pt").read_text() == "step 1\n"


@pytest.mark.long
@pytest.mark.parametrize("step", range(1, 13))
def test_a_worker_that_is_killed_at_any_step_leaves_one_job_with_its_checkpoint(
    waiting: MovingJob, sshd: RealSshd, step: int
) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=move_and_die,
        args=(waiting.settings, (sshd.host, sshd.port, sshd.host_key, sshd.client_key), waiting.store, TRAIN, step),
    )
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    assert len(alive(waiting)) <= 1
    waiting.key = "try-2"
    found = waiting.begin()
    assert alive(waiting) == [found]
    assert has_its_checkpoint(waiting, found)
    status = waiting.members(found).statuses([JOB_ID])[0]
    assert status.recovered.get("preempted") == 1
    assert PlacementRecord.from_json(json.loads(waiting.store.read_text())[PLACEMENT_KEY]).conn_id == found


@pytest.mark.long
def test_a_job_that_starts_in_the_very_moment_of_its_withdrawal_stays(waiting: MovingJob) -> None:
    first = waiting.members("gpu01")

    def start_it() -> None:
        if any("claim" in path.read_text() for path in claims_of(waiting, 1)):
            waiting.before_step = lambda: None
            first.cancel(["hog"], requested_by="a test", wait_s=20)
            jobs.wait(first, JOB_ID, JobState.RUNNING)

    waiting.before_step = start_it
    moved = waiting.moved()
    assert moved is not None
    assert (moved.record.conn_id, moved.record.moves) == ("gpu01", 0)
    assert alive(waiting) == ["gpu01"]
    assert not (at(waiting, 1) / "outputs").exists()
    # It goes on there as if nothing had been.
    first.interrupt_job(JOB_ID, kind="preempted", requested_by="a test")
    assert jobs.wait(first, JOB_ID, JobState.RUNNING).attempt >= 2


def claims_of(moving: MovingJob, number: int) -> list[Path]:
    return [path for path in (Path(moving.settings[number].root_dir) / ".gpu-run").rglob("*") if JOB_ID in path.name]


@pytest.mark.long
def test_a_cluster_that_goes_down_after_the_withdrawal_sends_the_job_back(
    waiting: MovingJob, cut_proxy: CutProxy
) -> None:
    waiting.members.close()
    ports = waiting.ports
    ports[1] = cut_proxy.port

    def cut_it() -> None:
        (status,) = waiting.members("gpu01").statuses([JOB_ID])
        if status.placement == "withdrawn":
            waiting.before_step = lambda: None
            waiting.members("gpu02").session = waiting.members("gpu02").session.retrying_for(0)
            cut_proxy.refusing = True
            cut_proxy.cut_now()

    waiting.before_step = cut_it
    moved = waiting.moved()
    assert moved is not None
    assert (moved.record.conn_id, moved.submission.handle.gpu_cluster_conn_id) == ("gpu01", "gpu01")
    cut_proxy.refusing = False
    assert alive(waiting) == ["gpu01"]
    assert has_its_checkpoint(waiting, "gpu01")
    (status,) = waiting.members("gpu01").statuses([JOB_ID])
    assert status.recovered == {"preempted": 1}


@pytest.mark.long
def test_a_full_disk_sends_the_job_back_with_all_it_has(
    cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    first = replace(cluster_settings, conn_id="gpu01", virtual_gpus=1)
    with small_disk(tmp_path / "small", 20_000) as folder:
        second = replace(first, conn_id="gpu02", root_dir=str(folder / "ml-jobs"), lease_dir=str(tmp_path / "leases"))
        large = TRAIN.replace("touch", "head -c 30000000 /dev/urandom > $CHECKPOINT_DIR/large.pt; touch")
        spec = {"recover": {"preempted": 2}}
        moving = MovingJob([first, second], lambda number: ssh_connect(), tmp_path / "store", command=large, spec=spec)
        assert moving.begin_on_first() == "gpu01"
        cluster = moving.members("gpu01")
        eventually((at(moving, 0) / "saved").exists)
        hog(cluster, "hog", priority="high")
        cluster.interrupt_job(JOB_ID, kind="preempted", requested_by="a test")
        jobs.wait(cluster, "hog", JobState.RUNNING)
        moved = moving.moved()
        assert moved is not None
        assert moved.record.conn_id == "gpu01"
        assert alive(moving) == ["gpu01"]
        assert (at(moving, 0) / "outputs" / "checkpoints" / "large.pt").stat().st_size == 30_000_000
        moving.close()
        kill_everything_under(folder)
