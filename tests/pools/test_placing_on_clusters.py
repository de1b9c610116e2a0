"""A job is launched once in a pool of real clusters, whatever happens between a worker and them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    PlacementUnknownError,
)
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.pool import IN_ORDER
from tests.harness import jobs
from tests.harness.leftovers import kill_everything_under
from tests.harness.moving_job import JOB_ID, MovingJob, begin_and_die, begin_at
from tests.harness.ports import free_port
from tests.harness.small_disk import fill, small_disk
from tests.harness.unpacked_program import provide_unpacked
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd

Connect = Callable[..., paramiko.SSHClient]
NAMES = ("gpu01", "gpu02", "gpu03")
# Steps of a launch among three clusters that are free: two of the store, three words, and then:
_FIRST_WORD, _SAVING_SENT, _SUBMIT, _SAVING_LAUNCHED = 3, 6, 7, 8


@pytest.fixture
def clusters(cluster_settings: ClusterSettings, tmp_path: Path) -> Iterator[list[ClusterSettings]]:
    """Return the settings of three clusters with two GPUs each."""
    found = []
    try:
        for name in NAMES:
            folder = tmp_path / name
            provide_unpacked(folder / "ml-jobs")
            place: dict[str, Any] = {"root_dir": str(folder / "ml-jobs"), "lease_dir": str(folder / "leases")}
            found.append(replace(cluster_settings, conn_id=name, virtual_gpus=2, **place))
        yield found
    finally:
        for name in NAMES:
            kill_everything_under(tmp_path / name)


class Line:
    """The line to the first cluster."""

    def __init__(self, proxy: CutProxy) -> None:
        self.proxy = proxy
        self.port = proxy.port

    def cut(self) -> None:
        """Let nobody through, and nobody wait."""
        self.port = free_port()
        self.proxy.cut_now()

    def mend(self) -> None:
        self.port = self.proxy.port


@pytest.fixture
def line(cut_proxy: CutProxy) -> Line:
    return Line(cut_proxy)


@pytest.fixture
def new_try(
    clusters: list[ClusterSettings], ssh_connect: Connect, tmp_path: Path, line: Line
) -> Iterator[Callable[..., MovingJob]]:
    """Return what makes one try of a task."""
    with ExitStack() as stack:

        def connect(cluster: int) -> paramiko.SSHClient:
            try:
                return ssh_connect(line.port if cluster == 0 else None)
            except paramiko.ssh_exception.NoValidConnectionsError as error:
                raise GpuClusterConnectionError(str(error)) from error

        def make(number: int = 1, **changes: Any) -> MovingJob:
            job = MovingJob(
                clusters,
                connect,
                tmp_path / "store",
                key=f"try-{number}",
                **changes,
            )
            stack.callback(job.close)
            return job

        yield make


def at_step(number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return what does something when it is called for the n-th time."""
    left, lock = [number], threading.Lock()

    def step() -> None:
        with lock:
            left[0] -= 1
            is_now = left[0] == 0
        if is_now:
            act()

    return step


def launches(clusters: list[ClusterSettings]) -> list[str]:
    """Return the cluster of each attempt of the job that there is, from the records."""
    return [
        one.conn_id
        for one in clusters
        for path in (Path(one.root_dir) / JOB_ID / ".job").glob("attempts/*/request.json")
    ]


def test_a_cluster_that_is_down_at_the_choice(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], line: Line
) -> None:
    line.cut()
    assert new_try().begin(IN_ORDER) == "gpu02"
    line.mend()
    assert new_try(2).begin(IN_ORDER) == "gpu02"
    assert launches(clusters) == ["gpu02"]


@pytest.mark.long
def test_the_chosen_one_goes_down_before_anything_was_sent(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], line: Line
) -> None:
    job = new_try(before_step=at_step(_FIRST_WORD, line.cut))
    assert job.begin(IN_ORDER) == "gpu02"
    line.mend()
    assert new_try(2).begin(IN_ORDER) == "gpu02"
    assert launches(clusters) == ["gpu02"]


def test_the_chosen_one_goes_down_between_the_launch_and_its_reply(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], line: Line
) -> None:
    job = new_try(retry_for_s=0.0)

    def cut_soon() -> None:
        # The request gets there, and only a part of the reply comes back.
        line.port = free_port()
        line.proxy.cut_after(nbytes=500, direction="down")

    job.before_step = at_step(_SUBMIT, cut_soon)
    with pytest.raises(PlacementUnknownError, match="may have been launched on gpu01"):
        job.begin(IN_ORDER)
    # Nothing is launched elsewhere as long as it is not known.
    with pytest.raises(PlacementUnknownError, match="may be on gpu01"):
        new_try(2).begin(IN_ORDER)
    line.mend()
    assert new_try(3).begin(IN_ORDER) == "gpu01"
    assert launches(clusters) == ["gpu01"]


def _killed_at(step: int, clusters: list[ClusterSettings], sshd: RealSshd, store: Path) -> None:
    server = (sshd.host, sshd.port, sshd.host_key, sshd.client_key)
    process = multiprocessing.get_context("spawn").Process(target=begin_and_die, args=(clusters, server, store, step))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.long
@pytest.mark.parametrize("step", range(1, _SAVING_LAUNCHED + 1))
def test_a_worker_is_killed(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], sshd: RealSshd, line: Line, step: int
) -> None:
    job = new_try(2)
    _killed_at(step, clusters, sshd, job.store)
    assert launches(clusters) == (["gpu01"] if step > _SUBMIT else [])
    # The next try cannot reach the cluster that may have it.
    line.cut()
    try:
        found = job.begin(IN_ORDER)
    except PlacementUnknownError:
        line.mend()
        found = job.begin(IN_ORDER)
    assert launches(clusters) == [found]


def test_a_full_disk_gives_way_to_the_next(
    clusters: list[ClusterSettings], ssh_connect: Connect, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", 20_000) as folder:
        provide_unpacked(folder / "ml-jobs")
        first = replace(clusters[0], root_dir=str(folder / "ml-jobs"), lease_dir=str(tmp_path / "own-leases"))
        fill(folder)
        job = MovingJob([first, *clusters[1:]], lambda number: ssh_connect(), tmp_path / "store")
        assert job.begin(IN_ORDER) == "gpu02"
        assert launches([first, *clusters[1:]]) == ["gpu02"]
        job.close()


def _all_at_once(tries: list[MovingJob]) -> list[str]:
    found: list[str] = []

    def begin(job: MovingJob) -> None:
        try:
            found.append(job.begin(IN_ORDER))
        except GpuClusterError as error:
            found.append(type(error).__name__)

    threads = [threading.Thread(target=begin, args=(job,)) for job in tries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_workers_choose_at_once(new_try: Callable[..., MovingJob], clusters: list[ClusterSettings]) -> None:
    # They have no store in common: neither remembers what the other does.
    tries = [new_try(number) for number in (1, 2)]
    tries[1].store = tries[1].store.with_name("another")
    tries[1].policy_order = (1, 0, 2)
    (where,) = set(_all_at_once(tries))
    assert launches(clusters) == [where]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_four_workers_choose_at_once(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], seed: int
) -> None:
    tries = [new_try(number) for number in range(1, 5)]
    for number, job in enumerate(tries):
        job.store = job.store.with_name(f"store-{number % 2}")
        job.policy_order = ((0, 1, 2), (1, 2, 0), (2, 0, 1))[(number + seed) % 3]
    found = set(_all_at_once(tries))
    # On a busy machine one may hear too little of the clusters to be sure.
    assert len(found - {PlacementUnknownError.__name__}) <= 1
    assert len(launches(clusters)) <= 1
    assert launches(clusters) == [new_try(9).begin(IN_ORDER)]


@pytest.mark.long
@pytest.mark.parametrize("round_", range(3))
def test_processes_choose_at_once(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], sshd: RealSshd, tmp_path: Path, round_: int
) -> None:
    server = (sshd.host, sshd.port, sshd.host_key, sshd.client_key)
    moment = time.time() + 15
    processes = []
    for number in range(3):
        # Each has another order of the clusters, and remembers nothing of the others.
        order = [*clusters[number:], *clusters[:number]]
        arguments = (moment, order, server, tmp_path / f"store-{number}", f"try-{number + 2}")
        processes.append(multiprocessing.get_context("spawn").Process(target=begin_at, args=arguments))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(launches(clusters)) <= 1
    assert launches(clusters) == [new_try(9).begin(IN_ORDER)]


@pytest.mark.long
def test_a_job_that_has_failed_is_placed_anew(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], line: Line
) -> None:
    job = new_try(command="echo $ATTEMPT >> $CHECKPOINT_DIR/tries; exit 1")
    assert job.begin(IN_ORDER) == "gpu01"
    jobs.wait(job.members("gpu01"), JOB_ID, JobState.FAILED)
    again = new_try(2, command="cat $CHECKPOINT_DIR/tries; sleep 60")
    again.policy_order = (1, 0, 2)
    assert again.begin(IN_ORDER) == "gpu02"
    status = jobs.wait(again.members("gpu02"), JOB_ID, JobState.RUNNING)
    assert status.attempt == 2
    assert (Path(clusters[1].root_dir) / JOB_ID / "outputs" / "checkpoints" / "tries").read_text() == "1\n"


@pytest.mark.long
def test_a_fault_of_the_job_is_told_at_once_and_leaves_nothing_claimed(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings]
) -> None:
    job = new_try(spec={"command": None, "entry_script": "missing.py", "gpus": 2})
    with pytest.raises(InvalidJobError, match=r"missing\.py"):
        job.begin(IN_ORDER)
    assert launches(clusters) == []
    appraised: Any = {"job_id": "another", "spec": {"gpus": 2}, "inputs": []}
    for name in NAMES:
        assert job.members(name).appraise([appraised])["jobs"][0]["free_gpus"] == 2


@pytest.mark.long
def test_a_job_that_runs_out_of_reach_is_launched_elsewhere_when_it_has_surely_ended(
    new_try: Callable[..., MovingJob], clusters: list[ClusterSettings], line: Line, eventually: Callable[..., Any]
) -> None:
    holds_on = {"failover_after_s": 15.0, "spec": {"orphan_timeout_s": 10.0, "grace_s": 1.0}}
    job = new_try(**holds_on)
    assert job.begin(IN_ORDER) == "gpu01"
    jobs.wait(job.members("gpu01"), JOB_ID, JobState.RUNNING)
    line.cut()
    again = new_try(2, **holds_on)
    with pytest.raises(PlacementUnknownError, match="nothing of it can run there any more"):
        again.begin(IN_ORDER)

    def failed_over() -> bool:
        try:
            return again.begin(IN_ORDER) == "gpu02"
        except PlacementUnknownError:
            return False

    eventually(failed_over, every_s=1.0)
    line.mend()
    # It has ended there by itself, before the other began.
    (first,) = new_try(3).members("gpu01").statuses([JOB_ID])
    second = jobs.wait(again.members("gpu02"), JOB_ID, JobState.RUNNING)
    assert (first.state, first.reason) == (JobState.CANCELLED, "orphaned")
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.ended_at < second.started_at
    assert new_try(3, **holds_on).begin(IN_ORDER) == "gpu02"
    # The first is told, and launches nothing more of it.
    told = new_try(3).members("gpu01").place(JOB_ID, {"epoch": 1, "key": "try-1", "conn_id": "gpu01"}, "claim")
    assert told["outcome"] == "outranked"
