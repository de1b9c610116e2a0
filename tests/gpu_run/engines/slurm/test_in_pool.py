"""A pool of a real Slurm and a host: a job is launched once, moves both ways, whatever Slurm says of its start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, PlacementUnknownError
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.pool import IN_ORDER
from tests.gpu_run.engines.slurm.test_jobs import slurm_jobs
from tests.harness import jobs
from tests.harness.leftovers import kill_everything_under
from tests.harness.moving_job import JOB_ID, MovingJob
from tests.harness.ports import free_port
from tests.harness.unpacked_program import provide_unpacked
from tests.servers.login_node import LoginNode
from tests.servers.proxy import CutProxy

pytestmark = pytest.mark.xdist_group("slurm")

SLURM, HOST = 0, 1
REFUSED_TRIAL = (
    'for one; do [[ $one != --test-only ]] || { echo "sbatch: error: --test-only is off" >&2; exit 1; }; done'
)


class Pool:
    """One job in a pool of a Slurm, behind a proxy, and a host."""

    def __init__(
        self, settings: list[ClusterSettings], connect: Callable[..., paramiko.SSHClient], proxy: CutProxy, store: Path
    ) -> None:
        self.settings = settings
        self.port = proxy.port
        self.proxy = proxy
        self._connect = connect
        self._store = store
        self.tries: list[MovingJob] = []
        self.marks = store.with_name("marks")

    def connect(self, number: int) -> paramiko.SSHClient:
        try:
            return self._connect(self.port if number == SLURM else None)
        except paramiko.ssh_exception.NoValidConnectionsError as error:
            raise GpuClusterConnectionError(str(error)) from error

    def new_try(self, **changes: object) -> MovingJob:
        number = len(self.tries) + 1
        command = f"echo $JOB_DIR >> {self.marks}; sleep 600"
        options = {"command": command, "retry_for_s": 0.0, **changes}
        job = MovingJob(self.settings, self.connect, self._store, key=f"try-{number}", **options)  # type: ignore[arg-type]
        self.tries.append(job)
        return job

    @property
    def attempts(self) -> list[str]:
        return [
            one.conn_id
            for one in self.settings
            for _ in (Path(one.root_dir) / JOB_ID / ".job" / "attempts").glob("*/request.json")
        ]

    @property
    def began(self) -> list[str]:
        return [Path(line).parts[-3] for line in self.marks.read_text().splitlines()] if self.marks.exists() else []


@pytest.fixture
def pool(
    settings: ClusterSettings, connect: Callable[..., paramiko.SSHClient], proxy: CutProxy, tmp_path: Path
) -> Iterator[Pool]:
    folder = tmp_path / "gpu01"
    roots = {"slurm-a": Path(settings.root_dir).parent / "slurm-a" / "ml-jobs", "gpu01": folder / "ml-jobs"}
    for root in roots.values():
        provide_unpacked(root)
    slurm = replace(settings, conn_id="slurm-a", root_dir=str(roots["slurm-a"]))
    host = replace(
        settings, conn_id="gpu01", root_dir=str(roots["gpu01"]), lease_dir=str(folder / "leases"), virtual_gpus=1
    )
    found = Pool([slurm, replace(host, engine="host")], connect, proxy, tmp_path / "store")
    yield found
    for job in found.tries:
        job.close()
    kill_everything_under(folder)


def test_the_reply_of_an_sbatch_is_lost(
    pool: Pool, login_node: LoginNode, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    there = tmp_path / "there"
    login_node.replace(
        "sbatch", f'$REAL "$@"; code=$?; [[ "$*" == *--test-only* ]] || touch {there}; sleep 1; exit $code'
    )
    job = pool.new_try()

    def cut() -> None:
        eventually(there.exists)
        pool.port = free_port()
        pool.proxy.cut_now()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(PlacementUnknownError, match="may have been launched on slurm-a"):
        job.begin(IN_ORDER)
    cutter.join()
    with pytest.raises(PlacementUnknownError, match="may be on slurm-a"):
        pool.new_try().begin(IN_ORDER)
    pool.port = pool.proxy.port
    job = pool.new_try()
    assert job.begin(IN_ORDER) == "slurm-a"
    jobs.wait(job.members("slurm-a"), JOB_ID, JobState.RUNNING)
    assert pool.attempts == ["slurm-a"]
    assert len(slurm_jobs(login_node, "pending,running")) == 1
    eventually(lambda: pool.began)
    assert pool.began == ["slurm-a"]


@pytest.mark.long
def test_it_moves_to_slurm(pool: Pool, eventually: Callable[..., Any]) -> None:
    job = pool.new_try()
    job.policy_order = (HOST, SLURM)
    jobs.submit(job.members("gpu01"), "sleep 600", job_id="hog", gpus=1, time_limit_s=7200.0)
    jobs.wait(job.members("gpu01"), "hog", JobState.RUNNING)
    assert job.begin(IN_ORDER) == "gpu01"
    moved = job.moved()
    assert moved is not None
    assert moved.record.conn_id == "slurm-a"
    jobs.wait(job.members("slurm-a"), JOB_ID, JobState.RUNNING)
    job.members("gpu01").cancel(["hog"], requested_by="a test", wait_s=20)
    (left,) = job.members("gpu01").statuses([JOB_ID])
    assert (left.state, left.placement, left.moved_to) == (JobState.CANCELLED, "withdrawn", "slurm-a")
    eventually(lambda: pool.began)
    assert pool.began == ["slurm-a"]


@pytest.mark.long
def test_it_moves_away_from_a_slurm_that_is_full(
    pool: Pool, login_node: LoginNode, eventually: Callable[..., Any]
) -> None:
    job = pool.new_try(spec={"time_limit_s": 3600.0})
    slurm = job.members("slurm-a")
    jobs.submit(slurm, "sleep 600", job_id="hog", gpus=4, nodes=2, time_limit_s=7200.0)
    jobs.wait(slurm, "hog", JobState.RUNNING)
    jobs.submit(job.members("gpu01"), "sleep 600", job_id="hog", gpus=1, time_limit_s=36000.0)
    jobs.wait(job.members("gpu01"), "hog", JobState.RUNNING)
    assert job.begin(IN_ORDER) == "slurm-a"
    eventually(lambda: len(slurm_jobs(login_node, "pending")) == 1)
    job.members("gpu01").cancel(["hog"], requested_by="a test", wait_s=20)
    # Slurm makes its plan from time to time.
    moved = eventually(job.moved, every_s=1.0)
    assert moved.record.conn_id == "gpu01"
    eventually(lambda: not slurm_jobs(login_node, "pending"))
    slurm.cancel(["hog"], requested_by="a test")
    eventually(lambda: not slurm_jobs(login_node, "pending,running"))
    jobs.wait(job.members("gpu01"), JOB_ID, JobState.RUNNING)
    eventually(lambda: pool.began)
    assert pool.began == ["gpu01"]


@pytest.mark.long
@pytest.mark.parametrize("says", ["refuses to say", "says N/A"])
def test_a_slurm_that_says_no_start_time(pool: Pool, login_node: LoginNode, says: str) -> None:
    job = pool.new_try()
    if says == "refuses to say":
        login_node.replace("sbatch", f'{REFUSED_TRIAL}; exec $REAL "$@"')
    else:
        login_node.replace("squeue", '$REAL "$@" | sed -E "s/20[0-9-]+T[0-9:]+/N\\/A/g"')
    # A host that is free comes first, as it is known there.
    assert job.begin() == ("gpu01" if says == "refuses to say" else "slurm-a")
    again = pool.new_try()
    assert again.begin() == job.begin()
    assert len(pool.attempts) == 1


@pytest.mark.long
def test_a_slurm_that_refuses_to_say_gets_the_job_where_it_is_the_only_one(pool: Pool, login_node: LoginNode) -> None:
    login_node.replace("sbatch", f'{REFUSED_TRIAL}; exec $REAL "$@"')
    job = pool.new_try(spec={"gpus": 2})  # the host has one
    assert job.begin() == "slurm-a"
    jobs.wait(job.members("slurm-a"), JOB_ID, JobState.RUNNING)


@pytest.mark.long
def test_its_slurm_is_lost_and_comes_back(pool: Pool, login_node: LoginNode, eventually: Callable[..., Any]) -> None:
    keeps = {"failover_after_s": 15.0, "spec": {"orphan_timeout_s": 8.0, "grace_s": 1.0}}
    job = pool.new_try(**keeps)
    slurm = job.members("slurm-a")
    jobs.submit(slurm, "sleep 600", job_id="hog", gpus=4, nodes=2, time_limit_s=7200.0)
    jobs.wait(slurm, "hog", JobState.RUNNING)
    assert job.begin(IN_ORDER) == "slurm-a"
    pool.port = free_port()
    pool.proxy.cut_now()
    again = pool.new_try(**keeps)

    def failed_over() -> bool:
        try:
            return again.begin(IN_ORDER) == "gpu01"
        except PlacementUnknownError:
            return False

    began = time.monotonic()
    eventually(failed_over, every_s=1.0)
    assert time.monotonic() - began > 10
    pool.port = pool.proxy.port
    with_slurm = pool.new_try(**keeps)
    assert with_slurm.begin(IN_ORDER) == "gpu01"
    with_slurm.members("slurm-a").cancel(["hog"], requested_by="a test")
    (there,) = with_slurm.members("slurm-a").statuses([JOB_ID])
    assert (there.state, there.started_at) == (JobState.CANCELLED, None)
    eventually(lambda: not slurm_jobs(login_node, "pending,running"))
    eventually(lambda: pool.began)
    assert pool.began == ["gpu01"]
