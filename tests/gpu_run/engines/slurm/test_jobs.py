"""Jobs on a real Slurm, over the real SSH path: submitted, followed, cancelled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import BudgetExceededError, LaunchError, NotEnoughGpusError
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.watch import loop
from airflow_provider_gpu_cluster.watch.watcher import Watcher
from tests.harness.jobs import request, submit, submit_array, wait
from tests.servers.login_node import LoginNode

pytestmark = pytest.mark.xdist_group("slurm")

HOLD = "sleep 600"
LARGE = """exec python3 -c 'import time; x = b"x" * (300 << 20); time.sleep(600)'"""


def slurm_jobs(login_node: LoginNode, state: str = "all") -> list[str]:
    """Return the ids of Slurm's jobs."""
    return login_node.slurm.run("squeue", "-h", "-r", "-t", state, "-o", "%i", check=True).stdout.split()


def slurm_job(cluster: Cluster, login_node: LoginNode, job_id: str) -> str:
    """Return the id of the one Slurm job that was submitted for the first attempt of a job."""
    listed = login_node.slurm.run("squeue", "-h", "-t", "all", "-o", "%i %Z", f"--name={job_id}.1", check=True).stdout
    (found,) = [line.split()[0] for line in listed.splitlines() if line.endswith(str(job_file(cluster, job_id)))]
    return found


def job_file(cluster: Cluster, job_id: str, *path: str) -> Path:
    return Path(cluster.settings.root_dir, job_id, *path)


def test_a_job_runs_on_the_gpus_that_slurm_gives_it(cluster: Cluster) -> None:
    submission = submit(cluster, 'echo "$CUDA_VISIBLE_DEVICES|$GPU_COUNT|$NNODES|$NODE_RANK"', gpus=2)
    assert submission.created
    assert submission.handle.engine == "slurm"
    status = wait(cluster, submission.handle.job_id)
    assert (status.state, status.log_tail) == (JobState.SUCCEEDED, "0,1|2|1|0\n")
    assert (status.gpus, status.host, status.exit_code) == ((0, 1), "gpu1", 0)
    assert job_file(cluster, submission.handle.job_id, "outputs", "SUCCESS").exists()


def test_no_secret_and_nothing_of_the_login_gets_into_slurm(
    cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any]
) -> None:
    command = 'echo "$TOKEN|$LOGIN_SECRET|$SLURM_EXPORT_ENV|"; exec sleep 600'
    job_id = submit(cluster, command, env={"TOKEN": "of-the-job"}).handle.job_id
    wait(cluster, job_id, JobState.RUNNING)
    job = slurm_job(cluster, login_node, job_id)
    shown = login_node.slurm.run("scontrol", "show", "job", job, "--details", check=True).stdout
    shown += login_node.slurm.run("scontrol", "write", "batch_script", job, "-", check=True).stdout
    assert f"JobName={job_id}.1" in shown
    assert "supervise-slurm" in shown
    for file in job_file(cluster, job_id).rglob("*"):
        if file.is_file() and file.name != "training.log":
            shown += file.read_text(errors="replace")
    assert "of-the-job" not in shown
    assert "of-the-login" not in shown
    assert eventually(lambda: log(cluster, job_id)) == "of-the-job|||\n"


def log(cluster: Cluster, job_id: str) -> str:
    path = job_file(cluster, job_id, "logs", "training.log")
    return path.read_text() if path.exists() else ""


def test_a_job_that_fails(cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any]) -> None:
    job_id = submit(cluster, "echo no >&2; exit 7").handle.job_id
    status = wait(cluster, job_id)
    assert (status.state, status.reason, status.exit_code) == (JobState.FAILED, "user_error", 7)
    assert status.log_tail == "no\n"
    # Slurm, whose users look there as well, hears the same.
    job = slurm_job(cluster, login_node, job_id)
    eventually(lambda: "ExitCode=7:0" in login_node.slurm.run("scontrol", "show", "job", job).stdout)


def test_the_same_request_finds_its_attempt_and_the_next_try_makes_another(
    cluster: Cluster, login_node: LoginNode
) -> None:
    before = len(slurm_jobs(login_node))
    first = submit(cluster, "exit 1", job_id="again")
    assert not submit(cluster, "exit 1", job_id="again").created
    wait(cluster, "again")
    second = submit(cluster, "exit 1", job_id="again", request_key="try-2")
    assert (first.status.attempt, second.status.attempt, second.created) == (1, 2, True)
    wait(cluster, "again")
    assert len(slurm_jobs(login_node)) == before + 2


def test_a_waiting_job_says_why(cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any]) -> None:
    for _ in range(2):
        wait(cluster, submit(cluster, HOLD, gpus=4, time_limit_s=3600).handle.job_id, JobState.RUNNING)
    waiting = submit(cluster, HOLD, gpus=1).handle.job_id

    def message() -> str:
        status = cluster.statuses([waiting])[0]
        assert status.state is JobState.QUEUED
        return status.message

    eventually(lambda: "the resources it asks for are in use (Resources)" in message())
    # Slurm's backfill finds out when the first of the others must have ended.
    eventually(lambda: "; expected to start before 20" in message(), timeout_s=40)
    expected = cluster.statuses([waiting])[0].expected_start
    assert expected is not None
    assert datetime.fromisoformat(expected) > datetime.now(timezone.utc)
    capacity = cluster.capacity()
    assert (len(capacity["gpus"]), capacity["free_gpus"], capacity["waiting_jobs"]) == (8, 0, 1)
    assert {gpu.get("state") for gpu in capacity["gpus"]} == {"leased"}
    drained = ("update", "nodename=gpu2", "state=drain", "reason=fan is, loud; see ticket 7")
    login_node.slurm.run("scontrol", *drained, check=True)
    try:
        seen = cluster.session.call("overview", {"hours": 1})["view"]
    finally:
        login_node.slurm.run("scontrol", "update", "nodename=gpu2", "state=resume", check=True)
    assert [(node["is_up"], node.get("reason")) for node in seen["nodes"]] == [
        (True, None),
        (False, "fan is, loud; see ticket 7"),
    ]
    first, second, third = seen["jobs"]
    assert (third["job_id"], third["place"], third["is_running"]) == (waiting, 1, False)
    assert "the resources it asks for are in use" in third["why"]
    assert third["expected_at"] > third["submitted_at"]
    assert {first["gpus"], second["gpus"]} == {4}
    assert first["by"]["dag_id"] == "dag"
    assert sorted(gpu["job"] for node in seen["nodes"] for gpu in node["gpus"]) == [0] * 4 + [1] * 4
    assert [(node["name"], "lone" in node["partitions"]) for node in seen["nodes"]] == [("gpu1", True), ("gpu2", False)]
    assert cluster.cancel([waiting], requested_by="the test")[0].state is JobState.CANCELLED


def test_cancel(cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any]) -> None:
    # Slurm tells one process after the other: what the shell waits for may end before the shell is told.
    command = "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.1 || :; done"
    running = submit(cluster, command, gpus=4, grace_s=8).handle.job_id
    # It runs before its shell has come to the trap.
    eventually(lambda: log(cluster, running))
    submit(cluster, HOLD, gpus=4)
    waiting = submit(cluster, HOLD, gpus=4).handle.job_id
    for _ in range(2):
        found = cluster.cancel([running, waiting], requested_by="ann", wait_s=20)
        assert [status.state for status in found] == [JobState.CANCELLED] * 2
        assert [status.message for status in found] == ["cancelled by ann", "cancelled by ann before it started"]
    assert "told" in log(cluster, running).splitlines()
    eventually(lambda: len(slurm_jobs(login_node, "pending,running,completing")) == 1)


def test_cancel_finds_a_job_whose_slurm_id_is_not_known(
    cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any]
) -> None:
    login_node.slurm.run("scontrol", "update", "partition=gpu", "state=down", check=True)
    try:
        job_id = submit(cluster, HOLD).handle.job_id
        record = job_file(cluster, job_id, ".job", "attempts", "1", "slurm.json")
        record.write_text('{"asked_at": 1.0}')
        assert cluster.cancel([job_id], requested_by="ann")[0].state is JobState.CANCELLED
        eventually(lambda: not slurm_jobs(login_node, "pending,running"))
    finally:
        login_node.slurm.run("scontrol", "update", "partition=gpu", "state=up", check=True)


def test_the_supervisor_keeps_the_limits(cluster: Cluster) -> None:
    late = submit(cluster, HOLD, time_limit_s=0.5).handle.job_id
    # Slurm gives it more, so that it is not Slurm which ends it.
    large = submit(cluster, LARGE, memory_bytes=100 << 20, sbatch_options=("--mem=2G",))
    status = wait(cluster, late)
    assert (status.state, status.reason) == (JobState.FAILED, "time_limit")
    assert status.message == "it ran longer than its time limit of 0.5 s"
    status = wait(cluster, large.handle.job_id)
    assert (status.state, status.reason) == (JobState.FAILED, "out_of_memory")
    assert status.message.endswith("its limit is 0.10 GiB")


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ({"gpus": 5}, NotEnoughGpusError, "Requested node configuration is not available"),
        ({"partition": "nope"}, LaunchError, "invalid partition specified: nope"),
        ({"gpu_type": "H100"}, NotEnoughGpusError, "no GPUs here are of type 'H100'; Slurm knows a100"),
    ],
)
def test_what_slurm_will_never_run_fails_at_once(
    cluster: Cluster, spec: dict[str, Any], error: type[LaunchError], said: str
) -> None:
    with pytest.raises(error, match=said):
        submit(cluster, **spec)


def test_options_reach_slurm(cluster: Cluster, login_node: LoginNode) -> None:
    spec: dict[str, Any] = {
        "gpu_type": "A1",
        "cpus": 3,
        "memory_bytes": 1 << 30,
        "time_limit_s": 600,
        "priority": "low",
        "partition": "scavenger",
        "sbatch_options": ("--exclude=gpu1",),
    }
    job_id = submit(cluster, 'echo "$OMP_NUM_THREADS $SLURM_CPUS_PER_TASK"', **spec).handle.job_id
    status = wait(cluster, job_id)
    assert (status.host, status.log_tail) == ("gpu2", "3 3\n")
    shown = login_node.slurm.run("scontrol", "show", "job", slurm_job(cluster, login_node, job_id), check=True).stdout
    for word in ("Partition=scavenger", "Nice=1000", "gpu:a100:1", "TimeLimit=00:13:00", "MinMemoryNode=1152M"):
        assert word in shown


def test_a_root_of_any_name(settings: ClusterSettings, connect: Callable[..., paramiko.SSHClient]) -> None:
    settings = replace(settings, root_dir=f'{settings.root_dir}/a\\b %j 100% "q" it\'s é字')
    with Cluster(settings, connect) as cluster:
        job_id = submit(cluster, "pwd").handle.job_id
        array = submit_array(cluster, 'echo "$ARRAY_INDEX"', [{}, {}]).handle.job_id
        status = wait(cluster, job_id)
        assert (status.state, status.log_tail) == (JobState.SUCCEEDED, f"{settings.root_dir}/{job_id}/code\n")
        assert wait(cluster, array).state is JobState.SUCCEEDED
        # What the script itself says is where it always is.
        supervisor = job_file(cluster, job_id, ".job", "attempts", "1", "supervisor.log")
        assert supervisor.read_text() == ""


def test_a_job_on_two_nodes(cluster: Cluster) -> None:
    command = 'echo "$NODE_RANK of $NNODES, $GPUS_PER_NODE GPUs: $CUDA_VISIBLE_DEVICES, $MASTER_ADDR:$MASTER_PORT $KEY"'
    job_id = submit(cluster, command, nodes=2, gpus=3, env={"KEY": "k"}).handle.job_id
    status = wait(cluster, job_id)
    assert status.state is JobState.SUCCEEDED, status
    first, second = sorted(status.log_tail.splitlines())
    assert first.startswith("0 of 2, 3 GPUs: 0,1,2, ")
    assert first.split(", ")[2:] == second.split(", ")[2:]
    assert second.startswith("1 of 2, ")
    assert (status.host, status.gpus) == ("gpu[1-2]", (0, 1, 2, 0, 1, 2))
    usage = status.usage
    assert [(gpu["host"], gpu["index"], gpu["mean_percent"]) for gpu in usage["gpus"]] == [
        ("gpu1", 0, 90.0),
        ("gpu1", 1, 30.0),
        ("gpu1", 2, 30.0),
        ("gpu2", 0, 90.0),
        ("gpu2", 1, 30.0),
        ("gpu2", 2, 30.0),
    ]
    assert (usage["source"], usage["gpu_mean_percent"]) == ("fake", 50.0)
    lines = (Path(cluster.settings.root_dir) / job_id / "logs" / "usage.jsonl").read_text().splitlines()
    assert {json.loads(line)["node"] for line in lines} == {"gpu1", "gpu2"}
    assert len(lines) == usage["samples"] >= 4


def test_a_node_s_failure_ends_the_others(cluster: Cluster) -> None:
    """The exit code is that of the first, although srun tells the largest: that of a node that was ended for it."""
    command = 'if [ "$NODE_RANK" = 1 ]; then exit 3; fi; trap "exit 137" TERM; sleep 600 & wait'
    job_id = submit(cluster, command, nodes=2).handle.job_id
    # On a busy machine srun misses an end now and then, for which it then waits half a minute.
    status = wait(cluster, job_id, timeout_s=90)
    assert (status.state, status.reason, status.exit_code) == (JobState.FAILED, "user_error", 3)
    assert status.message == "it ended with exit code 3, first where NODE_RANK is 1"
    assert "task 1: Exited with exit code 3" in status.log_tail


def test_the_connection_is_tested(cluster: Cluster, eventually: Callable[..., Any]) -> None:
    # The node of a job that has just ended gives its GPUs back a little later.
    eventually(lambda: cluster.capacity()["free_gpus"] == 8)
    found = cluster.check()
    assert (found["engine"], len(found["capacity"]["gpus"])) == ("slurm", 8)
    assert [warning.split(",")[0] for warning in found["warnings"]] == [
        "Slurm kills a job 8 s after its own TERM (KillWait)"
    ]


def test_an_array_is_one_array_of_slurm_and_a_retry_one_of_those_that_failed(
    cluster: Cluster, login_node: LoginNode
) -> None:
    command = 'echo run >> "$OUTPUT_DIR/runs"; test "$N" != "1" -o "$ATTEMPT" = 2'
    envs = [{"N": str(number)} for number in range(3)]
    job_id = submit_array(cluster, command, envs).handle.job_id
    status = wait(cluster, job_id)
    assert status.state is JobState.FAILED
    retry = submit_array(cluster, command, envs, job_id=job_id, request_key="try-2")
    assert retry.created
    assert wait(cluster, job_id).state is JobState.SUCCEEDED
    runs = sorted(path.read_text() for path in Path(cluster.settings.root_dir).glob(f"{job_id}*/outputs/runs"))
    assert runs == ["run\n", "run\n", "run\nrun\n"]
    listed = login_node.slurm.run("squeue", "-h", "-r", "-t", "all", "-o", "%F %Z", check=True).stdout.splitlines()
    mine = [line.split()[0] for line in listed if cluster.settings.root_dir in line]
    assert sorted(mine.count(job) for job in set(mine)) == [1, 3]


def test_jobs_are_launched_over_the_connection_that_watches_them(
    cluster: Cluster,
    settings: ClusterSettings,
    connect: Callable[..., paramiko.SSHClient],
    login_node: LoginNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "LINGER_S", 0.1)
    watcher = Watcher(settings.conn_id, lambda: Cluster(settings, connect))
    names = [f"launched-{number}" for number in range(8)]
    launches = [watcher.launch(request(HOLD, job_id=name, gpus=1)) for name in names]
    refused = watcher.launch(request(HOLD, gpus=99))
    assert all(launch.result(60).created for launch in launches)
    assert isinstance(refused.exception(60), LaunchError)
    again = [watcher.launch(request(HOLD, job_id=name, gpus=1)) for name in names]
    assert not any(launch.result(60).created for launch in again)
    listed = login_node.slurm.run("squeue", "-h", "-t", "all", "-o", "%j", check=True).stdout.split()
    assert sorted(name for name in listed if name.startswith("launched-")) == [f"{name}.1" for name in names]


def test_a_job_beyond_its_budget_is_handed_to_slurm_when_there_is_room(
    cluster: Cluster, connect: Callable[..., paramiko.SSHClient], login_node: LoginNode
) -> None:
    def beyond(over_budget: str) -> Cluster:
        settings = replace(cluster.settings, gpu_hours_budget={"all": 0}, over_budget=over_budget, read_at=time.time())
        return Cluster(settings, connect)

    said = r"all jobs together .* is used up: 0 of 0.*over_budget=wait"
    with beyond("refuse") as careful, pytest.raises(BudgetExceededError, match=said):
        submit(careful, "true")
    with beyond("wait") as patient:
        job_id = submit(patient, "true").handle.job_id
        (status,) = patient.statuses([job_id])
    assert (status.state, "0 of 0" in status.message) == (JobState.QUEUED, True)
    assert login_node.slurm.run("squeue", "-h", "-o", "%j", check=True).stdout.split().count(f"{job_id}.1") == 0
    with Cluster(replace(cluster.settings, read_at=time.time()), connect) as raised:
        assert wait(raised, job_id).state is JobState.SUCCEEDED
