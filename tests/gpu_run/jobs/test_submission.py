"""One launch per job, whoever asks, however often, and whatever is lost on the way."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import (
    InvalidJobError,
    JobConflictError,
    NotEnoughGpusError,
    StagingError,
)
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.sinks import open_sink
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.harness.jobs import record, submit, wait


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a file outside every job's directory to which each run of a job appends a line."""
    path = tmp_path / "runs"
    path.touch()
    return path


def count(runs: Path) -> int:
    return len(runs.read_text().splitlines())


def marking(runs: Path, then: str = "true") -> str:
    return f"echo run $ATTEMPT >> {runs}; {then}"


def test_a_job_runs_and_leaves_what_the_map_says(cluster: Cluster, runs: Path) -> None:
    handle = submit(cluster, marking(runs, 'echo done > "$OUTPUT_DIR/model.pth"')).handle
    status = wait(cluster, handle.job_id)
    assert status.state is JobState.SUCCEEDED
    job = Path(handle.job_dir)
    assert (job / "outputs/model.pth").read_text() == "done\n"
    assert (job / "outputs/SUCCESS").exists()
    assert not (job / "outputs/FAILED").exists()
    assert (job / "outputs/status.txt").read_text().startswith("SUCCEEDED exit_code=0")
    assert {path.name for path in job.iterdir()} == {"code", "data", "models", "outputs", "logs", "run.sh", ".job"}
    assert job.stat().st_mode & 0o777 == 0o700


def test_the_record_says_who_asked_and_what_happened_when(cluster: Cluster) -> None:
    who = record(triggered_by="ada", bundle_version="abc123", try_number=1)
    handle = submit(cluster, "true", who=who, env={"TOKEN": "hunter2-secret"}).handle
    wait(cluster, handle.job_id)
    job = Path(handle.job_dir, ".job")
    spec = json.loads((job / "spec.json").read_text())
    assert spec["by"] == who
    assert spec["environment_names"] == ["TOKEN"]
    events = [json.loads(line)["event"] for line in (job / "attempts/1/events.jsonl").read_text().splitlines()]
    assert events == ["requested", "started", "ended"]
    recorded = b"".join(path.read_bytes() for path in job.rglob("*") if path.is_file())
    assert b"hunter2-secret" not in recorded


def test_the_same_request_again_finds_the_attempt_whatever_became_of_it(cluster: Cluster, runs: Path) -> None:
    first = submit(cluster, marking(runs, "exit 3"), job_id="j")
    wait(cluster, "j")
    again = submit(cluster, marking(runs, "exit 3"), job_id="j")
    assert (first.created, again.created) == (True, False)
    assert again.status.state is JobState.FAILED
    assert again.handle == first.handle
    assert count(runs) == 1


def test_another_try_joins_what_runs(cluster: Cluster, runs: Path) -> None:
    submit(cluster, marking(runs, "sleep 20"), job_id="j")
    wait(cluster, "j", JobState.RUNNING)
    again = submit(cluster, marking(runs), job_id="j", request_key="try-2")
    assert not again.created
    assert again.status.attempt == 1
    cluster.cancel(["j"], requested_by="test", wait_s=5)
    assert count(runs) == 1


def test_another_try_takes_the_result_of_what_succeeded(cluster: Cluster, runs: Path) -> None:
    submit(cluster, marking(runs), job_id="j")
    wait(cluster, "j")
    again = submit(cluster, marking(runs), job_id="j", request_key="try-2")
    assert (again.created, again.status.state) == (False, JobState.SUCCEEDED)
    assert count(runs) == 1


def test_another_try_starts_the_next_attempt_of_what_failed_in_the_same_directory(cluster: Cluster) -> None:
    command = 'test -e "$CHECKPOINT_DIR/step" && exit 0; touch "$CHECKPOINT_DIR/step"; echo first; exit 1'
    first = submit(cluster, command, job_id="j").handle
    assert wait(cluster, "j").state is JobState.FAILED
    second = submit(cluster, command, job_id="j", request_key="try-2")
    assert second.created
    assert second.handle.job_dir == first.job_dir
    status = wait(cluster, "j")
    assert (status.state, status.attempt) == (JobState.SUCCEEDED, 2)
    logs = Path(first.job_dir, "logs")
    assert (logs / "training.attempt-1.log").read_text() == "first\n"
    assert (logs / "training.log").read_text() == ""
    assert not Path(first.job_dir, "outputs/FAILED").exists()


def test_a_clear_starts_over_with_empty_outputs(cluster: Cluster, runs: Path) -> None:
    command = marking(runs, 'ls "$OUTPUT_DIR" > "$LOG_DIR/seen"; touch "$OUTPUT_DIR/model.pth"')
    handle = submit(cluster, command, job_id="j").handle
    wait(cluster, "j")
    again = submit(cluster, command, job_id="j", generation="1", request_key="try-2")
    assert again.created
    assert wait(cluster, "j").attempt == 2
    assert "model.pth" not in Path(handle.job_dir, "logs/seen").read_text()
    assert Path(handle.job_dir, ".job/attempts/1/outputs/model.pth").exists()
    assert count(runs) == 2


def test_a_clear_never_starts_a_second_run_beside_the_first(cluster: Cluster, runs: Path) -> None:
    submit(cluster, marking(runs, "sleep 20"), job_id="j")
    wait(cluster, "j", JobState.RUNNING)
    assert not submit(cluster, marking(runs), job_id="j", generation="1", request_key="try-2").created
    cluster.cancel(["j"], requested_by="test", wait_s=5)
    assert count(runs) == 1


def test_many_submits_at_once_run_it_once(cluster_settings: Any, ssh_connect: Any, runs: Path) -> None:
    created = []

    def one(number: int) -> None:
        with Cluster(cluster_settings, ssh_connect) as cluster:
            # Half of them ask the same thing twice over, half are other tries.
            key = f"try-{number // 2}"
            created.append(submit(cluster, marking(runs, "sleep 1"), job_id="j", request_key=key).created)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False] * 7 + [True]
    with Cluster(cluster_settings, ssh_connect) as cluster:
        assert wait(cluster, "j").state is JobState.SUCCEEDED
    assert count(runs) == 1


def test_a_submit_that_died_before_its_job_was_in_line_is_completed(cluster: Cluster, runs: Path) -> None:
    blocker = submit(cluster, "sleep 300", gpus=4).handle
    wait(cluster, blocker.job_id, JobState.RUNNING)
    handle = submit(cluster, marking(runs), job_id="j").handle
    # What is left when the process dies right after it has made the attempt.
    for entry in Path(handle.job_dir).parent.glob(".gpu-run/queue/*/1-*-j"):
        entry.unlink()
    assert cluster.statuses(["j"])[0].state is JobState.QUEUED
    cluster.cancel([blocker.job_id], requested_by="test", wait_s=5)
    assert wait(cluster, "j").state is JobState.SUCCEEDED
    assert count(runs) == 1


def test_more_gpus_than_there_are_is_refused_at_once(cluster: Cluster) -> None:
    with pytest.raises(NotEnoughGpusError, match=r"asks for 5 GPUs, but .* has 4 x virtual"):
        submit(cluster, gpus=5)
    with pytest.raises(NotEnoughGpusError, match="of type 'A100'"):
        submit(cluster, gpus=1, gpu_type="A100")


def test_an_entry_script_that_is_not_in_the_code_is_refused_with_what_is(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").touch()
    sources = parse_sources(code="code", data=(), models=(), base_dir=tmp_path)
    with pytest.raises(InvalidJobError, match=r"'trian.py' is not in the code of .*, which has train.py"):
        submit(cluster, command=None, entry_script="trian.py", sources=sources)


def test_a_job_id_cannot_be_taken_over_by_another_task(cluster: Cluster) -> None:
    submit(cluster, job_id="j")
    with pytest.raises(JobConflictError, match="directory of another task's job"):
        submit(cluster, job_id="j", who=record(task_id="other"))


def test_what_is_no_job_id_is_refused_by_every_verb(cluster: Cluster, tmp_path: Path) -> None:
    submit(cluster, job_id="good", command="sleep 1000")
    calls: list[Callable[[str], object]] = [
        lambda job_id: submit(cluster, job_id=job_id),
        lambda job_id: cluster.stage(job_id, (), record=record()),
        lambda job_id: cluster.statuses(["good", job_id]),
        lambda job_id: cluster.cancel(["good", job_id], requested_by="ann"),
        lambda job_id: cluster.read_log(job_id, reader="ann"),
        lambda job_id: cluster.read_logs({"good": None, job_id: None}, reader="ann"),
        lambda job_id: cluster.collect(job_id, open_sink(tmp_path)),
    ]
    for call in calls:
        for job_id in ("--help", "../good"):
            with pytest.raises(InvalidJobError, match=f"'{job_id}' is no job id: use up to 100 of A-Z a-z 0-9 . _ -"):
                call(job_id)
    assert wait(cluster, "good", JobState.RUNNING).state is JobState.RUNNING


def test_a_job_that_was_never_staged_is_not_launched_as_staged(cluster: Cluster) -> None:
    with pytest.raises(StagingError, match="stage it"):
        submit(cluster, job_id="j", sources=None)


def test_staging_first_and_launching_later_by_another_task(cluster: Cluster, tmp_path: Path, runs: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("import sys; print(sys.argv[1:])")
    sources = parse_sources(code="code", data=(), models=(), base_dir=tmp_path)
    handle = cluster.stage("j", sources, record=record(task_id="stage"))
    assert handle.submitted_at is None
    assert cluster.statuses(["j"])[0].message == "it is staged, and was not launched"
    submit(cluster, command=None, entry_script="train.py", job_id="j", sources=None, who=record(task_id="submit"))
    status = wait(cluster, "j")
    assert status.state is JobState.SUCCEEDED
    assert status.seconds["staging"] > 0
    assert "--output_dir" in Path(handle.job_dir, "logs/training.log").read_text()


def connect_as_worker(settings: Any, sshd: Any, port: int) -> paramiko.SSHClient:
    """Connect as a worker does that is a process of its own."""
    client = paramiko.SSHClient()
    kind, key = sshd.host_key.split()
    address = f"[127.0.0.1]:{port}"
    client.get_host_keys().add(address, kind, paramiko.PKey.from_type_string(kind, base64.b64decode(key)))
    pkey = paramiko.Ed25519Key.from_private_key(io.StringIO(sshd.client_key))
    user = settings.name.split("@")[0]
    client.connect("127.0.0.1", port, user, pkey=pkey, allow_agent=False, look_for_keys=False)
    return client


def _submit_in_child(settings: Any, sshd: Any, port: int, runs: Path, code: Path) -> None:
    """Be a worker that submits a job with files, through a proxy that stops the clock for it."""
    with Cluster(settings, lambda: connect_as_worker(settings, sshd, port)) as cluster:
        sources = parse_sources(code=str(code), data=(), models=(), base_dir=code)
        submit(cluster, marking(runs), job_id="j", sources=sources, request_key=f"try-{os.getpid()}")


# Each time later by a part of the time before it: on a slow machine, a submit has no more moments to die in.
@pytest.mark.parametrize("growth", [1.7, pytest.param(1.04, marks=pytest.mark.long)])
def test_a_worker_killed_at_any_moment_of_a_submit_and_retried_runs_it_once(
    cluster_settings: Any, ssh_connect: Any, sshd: Any, cut_proxy: Any, runs: Path, tmp_path: Path, growth: float
) -> None:
    """SIGKILL the worker at growing times into its submit, until one gets through; then let a retry do the rest."""
    code = tmp_path / "code"
    code.mkdir()
    # Every packet takes a moment, so that each step of the protocol is long enough to die in.
    cut_proxy.delay_s = 0.01
    context = multiprocessing.get_context("fork")
    killed, finished = 0, False
    while not finished:
        job = f"j{killed}"
        # What the cluster has been sent before would not be sent again.
        (code / "train.py").write_bytes(os.urandom(200_000))
        worker = context.Process(target=_submit_in_child, args=(cluster_settings, sshd, cut_proxy.port, runs, code))
        worker.start()
        worker.join(0.1 * growth**killed)
        finished = worker.exitcode is not None
        if not finished:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            killed += 1
        with Cluster(cluster_settings, ssh_connect) as cluster:
            sources = parse_sources(code=str(code), data=(), models=(), base_dir=code)
            submit(cluster, marking(runs), job_id="j", sources=sources, request_key="retry")
            assert wait(cluster, "j").state is JobState.SUCCEEDED
        assert count(runs) == 1, f"after {job}"
        # The next round is a new job in place of this one.
        runs.write_text("")
        os.rename(Path(cluster_settings.root_dir, "j"), Path(cluster_settings.root_dir, job))
    assert killed >= 3


def test_submit_is_quick_to_answer_while_nothing_is_free(cluster: Cluster) -> None:
    submit(cluster, "sleep 300", gpus=4)
    waiting = submit(cluster, "true", gpus=4).handle
    began = time.monotonic()
    while not (status := cluster.statuses([waiting.job_id])[0]).queue_place:
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    assert status.state is JobState.QUEUED
    assert status.queue_place == 1
    assert "it needs 4 GPUs; of 4 there are 0 free" in status.message


def test_two_roots_of_one_host_share_its_gpus(
    cluster_settings: Any, ssh_connect: Any, eventually: Callable[..., Any]
) -> None:
    other_settings = dataclasses.replace(cluster_settings, root_dir=cluster_settings.root_dir + "-2")
    with Cluster(cluster_settings, ssh_connect) as one, Cluster(other_settings, ssh_connect) as two:
        first = submit(one, "sleep 600", gpus=3).handle
        wait(one, first.job_id, JobState.RUNNING)
        second = submit(two, "true", gpus=2).handle
        eventually(lambda: first.job_id in two.statuses([second.job_id])[0].message)
        assert two.statuses([second.job_id])[0].state is JobState.QUEUED
        one.cancel([first.job_id], requested_by="test", wait_s=20)
        assert wait(two, second.job_id).state is JobState.SUCCEEDED


def test_what_a_job_writes_elsewhere_has_the_users_own_permissions(cluster: Cluster, tmp_path: Path) -> None:
    """gpu-run's own files are private; a table that the job writes into a shared folder is not."""
    shared = tmp_path / "shared.csv"
    wait(cluster, submit(cluster, f"umask; touch {shared}").handle.job_id)
    assert shared.stat().st_mode & 0o777 == 0o644
