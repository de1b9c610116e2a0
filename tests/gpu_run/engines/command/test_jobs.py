"""Jobs through ``gpu-run --gpus 2 --memory 32G script.sh``, over the real SSH path: submitted, followed, cancelled."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import InvalidJobError, LaunchError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.logs.relay import LogPosition
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sinks import open_sink
from airflow_provider_gpu_cluster.triggers.output_log import OutputLog
from airflow_provider_gpu_cluster.watch import loop
from airflow_provider_gpu_cluster.watch.watcher import Watcher
from tests.gpu_run.engines.command.conftest import OPTIONS
from tests.harness.dag_runs import run_dag, states, xcom
from tests.harness.jobs import request, submit, submit_array, wait
from tests.harness.task_context import execute, task_context
from tests.servers.command_site import DETACHING, Site
from tests.servers.proxy import CutProxy

Eventually = Callable[..., Any]

HOLD = "sleep 600"
# A little more than it may use, since one that uses far more is killed with its supervisor by a launcher's own limit.
LARGE = """exec python3 -c 'import time; x = b"x" * (470 << 20); time.sleep(600)'"""
LIMIT = 400 << 20
COUNTED = 'echo run >> "$OUTPUT_DIR/runs"; '


def job_file(cluster: Cluster, job_id: str, *path: str) -> Path:
    return Path(cluster.settings.root_dir, job_id, *path)


def runs(cluster: Cluster, job_id: str) -> int:
    path = job_file(cluster, job_id, "outputs", "runs")
    return len(path.read_text().split()) if path.exists() else 0


def shown_by_ps(pid: int) -> bool:
    return subprocess.run(["ps", "-p", str(pid)], stdout=subprocess.DEVNULL).returncode == 0


def launched_pid(cluster: Cluster, job_id: str) -> int:
    lines = job_file(cluster, job_id, ".job", "attempts", "1", "events.jsonl").read_text().splitlines()
    (pid,) = [event["pid"] for event in map(json.loads, lines) if event["event"] == "launched"]
    return int(pid)


def test_a_job_runs_on_the_gpus_that_the_launcher_gives_it(
    cluster: Cluster, site: Site, tmp_path: Path, eventually: Eventually
) -> None:
    submission = submit(cluster, f'{COUNTED}echo "$CUDA_VISIBLE_DEVICES|$GPU_COUNT|$TOKEN"', gpus=2, env={"TOKEN": "x"})
    job_id = submission.handle.job_id
    assert (submission.created, submission.handle.engine) == (True, "command")
    status = wait(cluster, job_id)
    assert (status.state, status.log_tail, status.exit_code) == (JobState.SUCCEEDED, "0,1|2|x\n", 0)
    assert status.gpus == (0, 1)
    assert cluster.read_log(job_id, reader="test").data == b"0,1|2|x\n"
    assert cluster.read_log(job_id, reader="test", ack=LogPosition(1, 8)).data == b""
    collected = cluster.collect(job_id, open_sink(str(tmp_path / "home")), include=["runs", "SUCCESS"])
    assert sorted(file.path for file in collected) == ["SUCCESS", "runs"]
    # The site's own records show the job, and its own marker.
    (pool_job,) = site.pool_jobs()
    assert pool_job.startswith(job_id)
    eventually(lambda: Path(site.pool.root.path, pool_job, "outputs", "SUCCESS").exists())
    assert submit(cluster, "false", job_id=job_id, request_key="try-2").status.state is JobState.SUCCEEDED
    assert runs(cluster, job_id) == 1


def test_it_waits_runs_and_is_cancelled(cluster: Cluster, site: Site, eventually: Eventually) -> None:
    running = submit(cluster, COUNTED + HOLD, gpus=4).handle.job_id
    wait(cluster, running, JobState.RUNNING)
    waiting = submit(cluster, COUNTED + HOLD, gpus=4)
    assert waiting.status.state is JobState.QUEUED
    pids = [launched_pid(cluster, job_id) for job_id in (waiting.handle.job_id, running)]
    assert all(map(shown_by_ps, pids))
    assert cluster.capacity()["waiting_jobs"] == 1
    seen = cluster.session.call("overview", {"hours": 1})["view"]
    assert (seen["nodes"], seen["waiting_jobs"], bool(seen["launcher"])) == ([], 1, True)
    jobs = {job["job_id"]: (job["is_running"], job["gpus"], job["by"]["dag_id"]) for job in seen["jobs"]}
    assert jobs == {running: (True, 4, "dag"), waiting.handle.job_id: (False, 4, "dag")}
    eventually(lambda: site.pool.engine.capacity()["waiting_jobs"] == 1)
    for job_id, count in ((waiting.handle.job_id, 0), (running, 1)):
        for _ in range(2):
            (status,) = cluster.cancel([job_id], requested_by="ann", wait_s=10)
            assert (status.state, status.reason) == (JobState.CANCELLED, "cancelled")
        assert runs(cluster, job_id) == count
    eventually(lambda: not any(map(shown_by_ps, pids)))
    eventually(lambda: site.pool.engine.capacity()["free_gpus"] == 4)


def test_a_job_that_fails_and_its_retry(cluster: Cluster, site: Site) -> None:
    job_id = submit(cluster, "echo no >&2; exit 7").handle.job_id
    status = wait(cluster, job_id)
    assert (status.state, status.reason, status.exit_code) == (JobState.FAILED, "user_error", 7)
    again = submit(cluster, 'echo "$ATTEMPT"', job_id=job_id, request_key="try-2")
    assert again.created
    status = wait(cluster, job_id)
    assert (status.state, status.attempt, status.log_tail) == (JobState.SUCCEEDED, 2, "2\n")


@pytest.mark.parametrize(
    ("command", "limits", "reason"),
    [
        (HOLD, {"time_limit_s": 0.5}, "time_limit"),
        (LARGE, {"memory_bytes": LIMIT}, "out_of_memory"),
    ],
)
def test_it_is_the_job_s_own_limit_that_ends_it(
    settings: ClusterSettings,
    ssh_connect: Callable[..., paramiko.SSHClient],
    command: str,
    limits: dict[str, Any],
    reason: str,
) -> None:
    # This launcher counts the job's supervisor as well, so its limit is far above the job's.
    assert settings.launch_command is not None
    launch_command = settings.launch_command.partition(" --")[0] + " --memory 4G {script}"
    with Cluster(replace(settings, launch_command=launch_command), ssh_connect) as cluster:
        status = wait(cluster, submit(cluster, command, **limits).handle.job_id)
    assert (status.state, status.reason) == (JobState.FAILED, reason)


def test_a_launcher_that_holds_the_job_to_its_limit(
    settings: ClusterSettings, site: Site, ssh_connect: Callable[..., paramiko.SSHClient]
) -> None:
    # It counts the job's supervisor as well, and so would end a job before its own limit if it had the same.
    assert settings.launch_command is not None
    launch_command = settings.launch_command.partition(" --")[0] + " --memory 480M {script}"
    with Cluster(replace(settings, launch_command=launch_command), ssh_connect) as cluster:
        job_ids = [submit(cluster, LARGE, memory_bytes=LIMIT).handle.job_id for _ in range(3)]
        for job_id in job_ids:
            status = wait(cluster, job_id)
            assert (status.state, status.reason) == (JobState.FAILED, "out_of_memory")


def test_an_array_is_a_call_for_each(cluster: Cluster, site: Site, eventually: Eventually) -> None:
    envs = [{"NUMBER": str(number)} for number in range(6)]
    command = f'{COUNTED}test "$NUMBER" -ne 3'
    assert submit_array(cluster, command, envs).created
    status = wait(cluster, "a")
    assert status.state is JobState.FAILED
    assert len(site.pool_jobs()) == 6
    ran = sorted(Path(cluster.settings.root_dir).glob("*/outputs/runs"))
    assert [path.read_text() for path in ran] == ["run\n"] * 6
    # Only the one that failed is launched again.
    assert submit_array(cluster, COUNTED, envs, request_key="try-2").created
    assert wait(cluster, "a").state is JobState.SUCCEEDED
    assert len(site.pool_jobs()) == 7


def test_the_connection_is_cut_while_the_launcher_is_called(
    settings: ClusterSettings, site: Site, ssh_connect: Callable[..., paramiko.SSHClient], cut_proxy: CutProxy
) -> None:
    launcher = site.launcher(f"sleep 0.4\n{DETACHING}")
    settings = replace(settings, launch_command=f"{launcher} {{script}}")
    with Cluster(settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.check()
        for number in range(5):
            with ThreadPoolExecutor(1) as pool:
                cut = pool.submit(cut_when_called, site, number, cut_proxy)
                job_id = submit(cluster, COUNTED, job_id=f"cut-{number}").handle.job_id
                cut.result()
            assert wait(cluster, job_id).state is JobState.SUCCEEDED
            assert (site.calls, runs(cluster, job_id)) == (number + 1, 1)


def cut_when_called(site: Site, calls: int, proxy: CutProxy) -> None:
    """Cut the connection when the launcher is called once more."""
    deadline = time.monotonic() + 20
    while site.calls == calls and time.monotonic() < deadline:
        time.sleep(0.01)
    proxy.cut_now()


def test_old_jobs_are_cleared_away_and_others_are_not(cluster: Cluster, eventually: Eventually) -> None:
    ended = submit(cluster, "true", gpus=4).handle.job_id
    wait(cluster, ended)
    running = submit(cluster, HOLD, gpus=4).handle.job_id
    wait(cluster, running, JobState.RUNNING)
    waiting = submit(cluster, HOLD, gpus=4).handle.job_id
    for job_id in (ended, running, waiting):
        for path in job_file(cluster, job_id).rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
    record = job_file(cluster, ended, ".job", "attempts", "1", "exit.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "ended_at": "2020-01-01T00:00:00+00:00"}))

    def clear() -> bool:
        cluster.collect_garbage(60)
        return not job_file(cluster, ended).exists()

    eventually(clear)
    assert [cluster.statuses([job_id])[0].state for job_id in (running, waiting)] == [JobState.RUNNING, JobState.QUEUED]
    cluster.cancel([waiting, running], requested_by="test", wait_s=10)


def test_test_connection(command_conn: Callable[[str], Any], site: Site) -> None:
    launcher = site.gpu_run()
    connection = command_conn(launcher + OPTIONS)
    works, message = GpuClusterHook().test_connection()
    assert works, message
    assert f"Engine command: jobs go to {Path(site.pool.root.own, 'gpu-run')}, which alone knows the GPUs." in message
    assert connection["extra"]["root_dir"] in message
    for launch_command, problem in (
        ("no-such-launcher {script}", "there is no program 'no-such-launcher' on "),
        (f"{launcher} {{gpu}} {{script}}", "there is no placeholder {gpu}; valid are {gpus}, {gpu_type}, {cpus}"),
        (launcher, "it has no {script}"),
        (f"{launcher} '{{script}}", "its quotes do not match"),
    ):
        command_conn(launch_command)
        works, message = GpuClusterHook().test_connection()
        assert not works
        assert problem in message


def test_a_launcher_that_refuses_is_a_launch_error(
    command_conn: Callable[[str], Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_conn(site.gpu_run() + OPTIONS)
    with GpuClusterHook() as hook:
        with pytest.raises(LaunchError, match=r"has ended with exit code 2; it said: gpu-run: the job asks for 9 GPUs"):
            hook.submit(job_id="large", command="true", gpus=9)
        assert hook.status("large").reason == "launch_failed"
        with pytest.raises(LaunchError, match="a launch_command starts a script once"):
            hook.submit(job_id="wide", command="true", nodes=2)
    command_conn(f"{site.launcher(DETACHING)} {{script}} {{memory}}")
    with GpuClusterHook() as hook, pytest.raises(InvalidJobError, match="memory must be given here"):
        hook.submit(job_id="bare", command="true")


def test_submit_and_wait_in_one_task(command_conn: Callable[[str], Any], site: Site) -> None:
    command_conn(site.gpu_run() + OPTIONS)
    operator = SubmitGpuJobOperator(
        task_id="train", command='echo "$GPU_COUNT"', gpus=2, memory="1G", wait_for_completion=True, poll_interval=0.2
    )
    handle = execute(operator, task_context())
    assert handle["engine"] == "command"
    assert Path(handle["job_dir"], "logs", "training.log").read_text() == "2\n"


DEFERRED = """
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator

with DAG("launched", schedule=None) as dag:
    train = SubmitGpuJobOperator(
        task_id="train",
        command='echo "on $GPU_COUNT"; touch "$OUTPUT_DIR/model.pkl"; printf "no %s" end',
        gpus=2,
        wait_for_completion=True,
        deferrable=True,
    )
    results = CollectGpuJobOperator(task_id="collect", job=train.output, destination="{home}", include=["*.pkl"])
    train >> results
"""


@pytest.mark.long
def test_a_dag_whose_task_is_deferred(
    command_conn: Callable[[str], Any], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_conn(site.gpu_run() + OPTIONS)
    shown: list[str] = []
    monkeypatch.setattr(OutputLog, "line", lambda log, text: shown.append(text))
    (tmp_path / "dags").mkdir()
    run = run_dag(tmp_path / "dags", DEFERRED.replace("{home}", str(tmp_path / "home")), monkeypatch)
    assert states(run) == {"train": "success", "collect": "success"}
    assert shown == ["on 2", "no end"]
    assert (tmp_path / "home" / "model.pkl").exists()
    assert xcom(run, "train")["engine"] == "command"


def test_a_job_is_launched_over_the_connection_that_watches_it(
    cluster: Cluster, settings: ClusterSettings, ssh_connect: Callable[..., paramiko.SSHClient], monkeypatch: Any
) -> None:
    monkeypatch.setattr(loop, "LINGER_S", 0.1)
    watcher = Watcher(settings.conn_id, lambda: Cluster(settings, ssh_connect))
    launches = [watcher.launch(request(COUNTED, job_id="job")) for _ in range(3)]
    assert sorted(launch.result(60).created for launch in launches) == [False, False, True]
    assert wait(cluster, "job").state is JobState.SUCCEEDED
    assert runs(cluster, "job") == 1
