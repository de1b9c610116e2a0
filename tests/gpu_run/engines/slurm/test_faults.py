"""What goes wrong on a real Slurm: each end has its own reason, and nothing runs twice."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from tests.gpu_run.engines.slurm.test_jobs import HOLD, LARGE, job_file, slurm_job, slurm_jobs
from tests.harness.jobs import submit, wait
from tests.servers.login_node import LoginNode
from tests.servers.proxy import CutProxy
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm-faults")

# Says each time the user's code begins.
COUNTED = 'echo run >> "$OUTPUT_DIR/runs"; '


def runs(cluster: Cluster, job_id: str) -> int:
    """Return how often the user's code has begun."""
    path = job_file(cluster, job_id, "outputs", "runs")
    return path.read_text().count("run") if path.exists() else 0


def end_of(status: JobStatus) -> tuple[JobState, str | None]:
    return status.state, status.reason


@pytest.fixture
def start(cluster: Cluster) -> Callable[..., str]:
    """Return a function that submits a job which runs until it is ended, and returns its id when it runs."""

    def start(command: str = HOLD, **spec: Any) -> str:
        job_id = submit(cluster, COUNTED + command, **spec).handle.job_id
        wait(cluster, job_id, JobState.RUNNING)
        return job_id

    return start


# -- ends by Slurm's word --------------------------------------------------------------------------------------------


def test_somebody_cancels_it_in_slurm(
    cluster: Cluster, login_node: LoginNode, start: Callable[..., str], eventually: Callable[..., Any]
) -> None:
    # One that would pass for a success.
    running = start("trap 'exit 0' TERM; sleep 600 & wait", gpus=4)
    start(gpus=4)
    waiting_job = submit(cluster, HOLD, gpus=4, env={"TOKEN": "secret"}).handle
    waiting = waiting_job.job_id
    login_node.slurm.run(
        "scancel", slurm_job(cluster, login_node, running), slurm_job(cluster, login_node, waiting), check=True
    )
    assert end_of(wait(cluster, waiting)) == (JobState.CANCELLED, "cancelled")
    assert not list(Path(waiting_job.job_dir).rglob("env.json"))
    status = wait(cluster, running)
    assert end_of(status) == (JobState.CANCELLED, "cancelled")
    assert "cancelled in Slurm" in status.message
    # What the supervisor knew is there as well.
    assert status.peak_memory_bytes
    assert status.gpu_seconds


def test_a_node_fails(cluster: Cluster, login_node: LoginNode, start: Callable[..., str]) -> None:
    job_id = start()
    login_node.slurm.run("scontrol", "update", "node=gpu1", "state=down", "reason=test", check=True)
    try:
        assert end_of(wait(cluster, job_id)) == (JobState.FAILED, "node_failure")
    finally:
        login_node.slurm.run("scontrol", "update", "node=gpu1", "state=resume")


def test_slurm_ends_it_for_its_memory(cluster: Cluster) -> None:
    job_id = submit(cluster, LARGE, sbatch_options=("--mem=120M",)).handle.job_id
    assert end_of(wait(cluster, job_id)) == (JobState.FAILED, "out_of_memory")


def test_what_slurm_requeues_does_not_run_again(
    cluster: Cluster, login_node: LoginNode, start: Callable[..., str], eventually: Callable[..., Any]
) -> None:
    job_id = start(sbatch_options=("--requeue",))
    job = slurm_job(cluster, login_node, job_id)
    login_node.slurm.run("scontrol", "requeue", job, check=True)
    status = wait(cluster, job_id)
    assert end_of(status) == (JobState.FAILED, "preempted")
    assert "put it back into its queue" in status.message
    eventually(lambda: job not in slurm_jobs(login_node, "pending,running,completing"))
    assert runs(cluster, job_id) == 1
    # The next try is another attempt, and runs.
    submit(cluster, COUNTED, job_id=job_id, request_key="try-2")
    assert wait(cluster, job_id).state is JobState.SUCCEEDED


@pytest.mark.parametrize("victims", [["guard"], ["guard", "supervisor"]], ids=" and ".join)
def test_its_supervisor_or_guard_is_killed(cluster: Cluster, start: Callable[..., str], victims: list[str]) -> None:
    job_id = start()
    supervisor = json.loads(job_file(cluster, job_id, ".job", "attempts", "1", "claim.json").read_text())["pid"]
    guard = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    for victim in victims:
        os.kill({"guard": guard, "supervisor": supervisor}[victim], signal.SIGKILL)
    assert end_of(wait(cluster, job_id)) == (JobState.LOST, "lost")


# -- Slurm itself ----------------------------------------------------------------------------------------------------


def test_the_controller_is_down_for_a_while(
    cluster: Cluster, login_node: LoginNode, start: Callable[..., str], eventually: Callable[..., Any]
) -> None:
    running = start()
    ending = start('until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.1; done')
    login_node.slurm.stop_controller()
    try:
        status = eventually(lambda: unknown(cluster.statuses([running])[0]), timeout_s=60)
        assert "Slurm cannot be asked: " in status.message
        # What the job's own record says needs no Slurm.
        job_file(cluster, ending, "outputs", "go").touch()
        assert wait(cluster, ending).state is JobState.SUCCEEDED
        # A job is taken all the same, and waits.
        new = submit(cluster, COUNTED)
        assert new.status.state is JobState.QUEUED
        assert "Slurm has not answered" in new.status.message
        # A cancel reaches the job without Slurm.
        assert cluster.cancel([running], requested_by="ann", wait_s=20)[0].state is JobState.CANCELLED
    finally:
        login_node.slurm.start_controller()
    assert wait(cluster, new.handle.job_id, timeout_s=60).state is JobState.SUCCEEDED
    assert runs(cluster, new.handle.job_id) == 1


def unknown(status: JobStatus) -> JobStatus | None:
    return status if status.state is JobState.UNKNOWN else None


@pytest.fixture
def forgetful(login_node: LoginNode) -> Iterator[RealSlurm]:
    """Return a Slurm whose controller forgets jobs two seconds after their end."""
    login_node.slurm.configure(min_job_age_s=2)
    yield login_node.slurm
    login_node.slurm.configure()


def test_what_the_controller_has_forgotten_is_in_the_accounting(
    cluster: Cluster,
    forgetful: RealSlurm,
    login_node: LoginNode,
    start: Callable[..., str],
    eventually: Callable[..., Any],
) -> None:
    job_id = start()
    job = slurm_job(cluster, login_node, job_id)
    forgetful.run("scancel", job, check=True)
    eventually(lambda: job not in slurm_jobs(login_node), timeout_s=60)
    assert end_of(wait(cluster, job_id)) == (JobState.CANCELLED, "cancelled")


# -- submitting ------------------------------------------------------------------------------------------------------


def test_a_submit_limit_is_waited_for(cluster: Cluster) -> None:
    first = submit(cluster, HOLD, qos="single").handle.job_id
    second = submit(cluster, COUNTED, qos="single")
    assert second.status.state is JobState.QUEUED
    assert "Slurm takes no more jobs of yours now (QOSMaxSubmitJobPerUserLimit" in second.status.message
    cluster.cancel([first], requested_by="the test", wait_s=20)
    assert wait(cluster, second.handle.job_id).state is JobState.SUCCEEDED
    assert runs(cluster, second.handle.job_id) == 1


def test_an_sbatch_that_answers_after_its_client_gave_up(
    cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any]
) -> None:
    login_node.replace(
        "sbatch",
        """
        script=$(mktemp)
        cat > $script
        for option in "$@"; do [[ $option != --job-name=* ]] || name=${option#--job-name=}; done
        (
            for fd in {3..30}; do eval "exec $fd>&-"; done
            # Not before the next sbatch, which would find it in Slurm otherwise, and leave it at that.
            for _ in {1..200}; do [[ -z $(squeue -h -t all --name=$name) ]] || break; sleep 0.1; done
            $REAL "$@" < $script
            rm $script
        ) > /dev/null 2>&1 &
        rm -f $(dirname "$0")/sbatch
        echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
        exit 1
        """,
    )
    submission = submit(cluster, f"{COUNTED} sleep 4")
    job_id = submission.handle.job_id
    assert "Slurm has not answered, and may have the job: " in submission.status.message
    # Both get through, and one of them finds that there is nothing to do. Slurm soon forgets what has ended.
    ids: set[str] = set()

    def of_slurm(states: str) -> list[str]:
        return login_node.slurm.run("squeue", "-h", "-t", states, "-o", "%A", f"--name={job_id}.1").stdout.split()

    def both_have_come() -> bool:
        cluster.statuses([job_id])  # who looks hands it over again
        ids.update(of_slurm("all"))
        return len(ids) == 2

    eventually(both_have_come)
    assert wait(cluster, job_id).state is JobState.SUCCEEDED
    eventually(lambda: not of_slurm("PD,R,CG"))
    assert runs(cluster, job_id) == 1


@pytest.mark.parametrize("cuts", [3, pytest.param(20, marks=pytest.mark.long)])
def test_the_connection_is_cut_between_sbatch_and_its_reply_again_and_again(
    cuts: int,
    settings: ClusterSettings,
    connect: Callable[..., paramiko.SSHClient],
    proxy: CutProxy,
    login_node: LoginNode,
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    there = tmp_path / "there"
    login_node.replace("sbatch", f'$REAL "$@"; code=$?; touch {there}; sleep 0.3; exit $code')
    with Cluster(settings, lambda: connect(proxy.port)) as cluster:
        cluster.check()
        jobs = []
        for number in range(cuts):
            there.unlink(missing_ok=True)
            cutter = _cut_when(there.exists, proxy)
            submission = submit(cluster, COUNTED, request_key=f"try-{number}")
            cutter.join()
            jobs.append(submission.handle.job_id)
        assert proxy.connections > cuts
        for job_id in jobs:
            assert wait(cluster, job_id).state is JobState.SUCCEEDED
            assert runs(cluster, job_id) == 1
            slurm_job(cluster, login_node, job_id)


def _cut_when(check: Callable[[], bool], proxy: CutProxy) -> threading.Thread:
    """Cut the proxy's connections as soon as something is so."""

    def cut() -> None:
        deadline = time.monotonic() + 60
        while not check() and time.monotonic() < deadline:
            time.sleep(0.005)
        proxy.cut_now()

    thread = threading.Thread(target=cut)
    thread.start()
    return thread
