"""One SSH session to a cluster: whatever happens to it, a job is launched once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection import connection as connection_module
from airflow_provider_gpu_cluster.connection import retry
from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    JobConflictError,
    LaunchError,
)
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.logs.relay import LogPosition
from airflow_provider_gpu_cluster.sinks.local import LocalSink
from airflow_provider_gpu_cluster.sources import GitSource, parse_sources
from tests.harness import jobs
from tests.servers.proxy import CutProxy

Connect = Callable[..., paramiko.SSHClient]


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass between two tries."""
    monkeypatch.setattr(Connection, "sleep", lambda self, seconds: None)


def ends(cluster: Cluster, *job_ids: str) -> list[str]:
    """Wait until jobs have ended, and return their states."""
    return [str(jobs.wait(cluster, job_id).state) for job_id in job_ids]


def test_who_has_done_what_from_where(cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path) -> None:
    with Cluster(cluster_settings, ssh_connect, caller={"owner": "ada", "airflow_host": "worker-1"}) as cluster:
        job_id = jobs.submit(cluster, "echo 1 > $OUTPUT_DIR/x").handle.job_id
        jobs.wait(cluster, job_id)
        cluster.collect(job_id, LocalSink(tmp_path / "home"))
        acts = {line["act"]: line for line in cluster.audit(job_id)["acts"]}
        with pytest.raises(LaunchError, match="there is no job never"):
            cluster.audit("never")
    assert list(acts) == ["submit", "launch", "end", "collect"]
    for act in ("submit", "collect"):
        told = [acts[act].get(name) for name in ("by", "host", "address")]
        assert told == ["ada", "worker-1", "127.0.0.1"]


# -- connections that break --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uploads", "connected", "killed", "stride"),
    [
        # Before it is connected nothing can have been launched, and an upload is many steps of one kind: there a part
        # of the steps stands for all.
        pytest.param(False, True, False, 1, id="nothing to upload"),
        pytest.param(False, True, True, 1, id="nothing to upload, worker killed"),
        pytest.param(False, False, False, 4, id="nothing to upload, not connected"),
        pytest.param(True, True, False, 5, id="files to upload"),
        pytest.param(True, True, True, 3, id="files to upload, worker killed"),
    ],
)
def test_a_connection_cut_at_every_step_of_a_submit(
    cluster: Cluster,
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    cut_proxy: CutProxy,
    tmp_path: Path,
    quick_retries: None,
    eventually: Any,
    uploads: bool,
    connected: bool,
    killed: bool,
    stride: int,
) -> None:
    """
    Each time the job runs once. The client recovers by itself; or its worker is killed, which to the cluster is the
    same thing, and the next try comes from another one.
    """
    cluster.check()
    code = tmp_path / "train"
    code.mkdir()
    (code / "train.py").write_text("#" * 1000)
    wanted = parse_sources(code=str(code), data=None, models=None, base_dir=tmp_path) if uploads else ()
    submitted: list[str] = []
    was_cut = True
    while was_cut:
        step = len(submitted) * stride + 1
        job: dict[str, Any] = {
            "command": f"{'test -s train.py; ' if uploads else ''}echo run >> {tmp_path}/job-{step}",
            "job_id": f"job-{step}",
            "sources": wanted,
        }
        # What the last connection says when it is closed must not count for the next one.
        eventually(lambda: cut_proxy.is_idle)
        with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port), retry_for_s=0 if killed else 60) as cut:
            if connected:
                cut.statuses([])
            before = cut_proxy.connections
            cut_proxy.cut_after(pieces=step)
            try:
                jobs.submit(cut, **job)
                was_cut = cut_proxy.connections > before + (not connected)
            except GpuClusterConnectionError:
                assert killed
        if killed:
            jobs.submit(cluster, **job, request_key="try-2")
        submitted.append(f"job-{step}")
        assert len(submitted) < 200
    assert step > 3
    assert set(ends(cluster, *submitted)) == {"SUCCEEDED"}
    for job_id in submitted:
        assert (tmp_path / job_id).read_text() == "run\n"
        assert os.listdir(Path(cluster_settings.root_dir) / job_id / ".job" / "attempts") == ["1"]


def test_a_reply_that_is_lost_is_found_again(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, tmp_path: Path, quick_retries: None
) -> None:
    """The job was launched, but nobody heard of it: the same call finds it."""
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.check()
        cut_proxy.cut_after(nbytes=1, direction="down")
        submission = jobs.submit(cluster, f"echo run >> {tmp_path}/runs", job_id="job")
        assert submission.status.attempt == 1
        assert ends(cluster, "job") == ["SUCCEEDED"]
        again = jobs.submit(cluster, f"echo run >> {tmp_path}/runs", job_id="job")
        assert (again.created, again.status.state) == (False, JobState.SUCCEEDED)
    assert (tmp_path / "runs").read_text() == "run\n"


def test_every_call_survives_a_cut(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, quick_retries: None
) -> None:
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        jobs.submit(cluster, "echo hello", job_id="job")
        ends(cluster, "job")
        calls: list[Callable[[], Any]] = [
            cluster.capacity,
            lambda: cluster.appraise([{"job_id": "job", "spec": {"gpus": 1}, "inputs": []}])["jobs"],
            lambda: cluster.stage("job", (), record=jobs.record()),
            lambda: cluster.statuses(["job"])[0].state,
            lambda: cluster.read_log("job", reader="r").data,
            lambda: cluster.cancel(["job"], requested_by="me")[0].state,
        ]
        for call in calls:
            expected = call()
            for pieces in (1, 3):
                before = cut_proxy.connections
                cut_proxy.cut_after(pieces=pieces)
                assert call() == expected
                assert cut_proxy.connections == before + 1
                cut_proxy.cut_after(pieces=None, times=0)


def test_long_after_the_beginning_a_cut_is_still_survived(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, quick_retries: None, tmp_path: Path
) -> None:
    """Time for other tries is about trouble, not about how long a transfer has gone well before."""
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port), retry_for_s=1.0) as cluster:
        jobs.submit(cluster, "trap '' TERM; sleep 30", job_id="job", grace_s=30)
        jobs.wait(cluster, "job", JobState.RUNNING)
        timer = threading.Timer(2.0, cut_proxy.cut_now)
        timer.start()
        before = cut_proxy.connections
        (status,) = cluster.cancel(["job"], requested_by="me", wait_s=2.5)
        timer.join()
        assert cut_proxy.connections == before + 1
        assert status.state is JobState.RUNNING


def test_the_log_in_pieces_over_connections_that_break(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, quick_retries: None
) -> None:
    """Every byte once, in order, to the end: also when it ends in the middle of nothing."""
    expected = bytes(range(256)) * 2000
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 2000)"
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        jobs.submit(cluster, f"{sys.executable} -c '{script}'", job_id="job")
        got = b""
        ack: LogPosition | None = None
        cut_proxy.cut_after(nbytes=100_000, direction="down", times=5)
        while True:
            chunk = cluster.read_log("job", reader="r", ack=ack, max_bytes=60_000)
            assert chunk.start.offset == len(got)
            got += chunk.data
            ack = chunk.end
            if chunk.status.final and not chunk.data:
                break
    assert got == expected
    assert cut_proxy.connections > 3


# -- more than one at once ---------------------------------------------------------------------------------------


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Call something from many threads at the same moment; return the results in order."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = call(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_twenty_jobs_at_once_against_a_stock_server(
    cluster: Cluster, cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path
) -> None:
    """Each with a connection of its own, more than the server lets in at once, and a program yet to be installed."""

    def submit(number: int) -> Any:
        with Cluster(cluster_settings, ssh_connect) as own:
            return jobs.submit(own, f"echo run >> {tmp_path}/runs-{number}", job_id=f"job-{number}", gpus=1)

    submissions = at_once(20, submit)
    assert [getattr(submission, "created", submission) for submission in submissions] == [True] * 20
    assert ends(cluster, *(f"job-{number}" for number in range(20))) == ["SUCCEEDED"] * 20
    assert [(tmp_path / f"runs-{number}").read_text() for number in range(20)] == ["run\n"] * 20


@pytest.mark.parametrize("same_try", [True, False], ids=["same try", "tries of their own"])
def test_one_job_submitted_by_many_at_once_runs_once(
    cluster: Cluster, cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, same_try: bool
) -> None:
    (tmp_path / "a.py").write_text("1")
    wanted = parse_sources(code=str(tmp_path / "a.py"), data=None, models=None, base_dir=tmp_path)

    def submit(number: int) -> Any:
        with Cluster(cluster_settings, ssh_connect) as own:
            key = "try" if same_try else f"try-{number}"
            command = f"echo run >> {tmp_path}/runs; test -e a.py"
            return jobs.submit(own, command, job_id="job", request_key=key, sources=wanted)

    submissions = at_once(8, submit)
    assert sorted(getattr(submission, "created", submission) for submission in submissions) == [False] * 7 + [True]
    assert {submission.handle.submitted_at for submission in submissions} != {None}
    assert len({submission.handle.submitted_at for submission in submissions}) == 1
    assert ends(cluster, "job") == ["SUCCEEDED"]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_forgotten_request_does_not_launch_a_job_again(
    cluster: Cluster, cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, eventually: Any
) -> None:
    """
    A worker dies while the cluster fetches code for it. The next try launches the job, which fails. Only then does
    the fetch of the first request come to its end: it must not start attempt 2, which nobody has asked for.
    """
    command = f"echo run >> {tmp_path}/runs; exit 3"
    _submit_and_die(cluster_settings, ssh_connect, tmp_path, command, eventually)
    jobs.submit(cluster, command, job_id="job", request_key="try-2")
    assert jobs.wait(cluster, "job").exit_code == 3

    (tmp_path / "go").touch()
    eventually(lambda: not _processes("gpu-run.*submit|pyz submit", cluster_settings.root_dir))
    assert jobs.wait(cluster, "job").attempt == 1
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_forgotten_request_that_was_cancelled_launches_nothing(
    cluster: Cluster, cluster_settings: ClusterSettings, ssh_connect: Connect, tmp_path: Path, eventually: Any
) -> None:
    """A user ends the task while the cluster fetches code for it: there is nothing to cancel yet, but its request."""
    _submit_and_die(cluster_settings, ssh_connect, tmp_path, f"echo run >> {tmp_path}/runs", eventually)
    (status,) = cluster.cancel(["job"], requested_by="ada", request_keys={"job": "try-1"})
    assert status.attempt == 0
    (tmp_path / "go").touch()
    eventually(lambda: not _processes("gpu-run.*submit|pyz submit", cluster_settings.root_dir))
    assert cluster.statuses(["job"])[0].attempt == 0
    # Whoever asks again with that key is told so; the next try is free.
    with pytest.raises(JobConflictError, match="was cancelled by ada before it was launched"):
        jobs.submit(cluster, "true", job_id="job")
    assert jobs.submit(cluster, "true", job_id="job", request_key="try-2").created


def _submit_and_die(settings: ClusterSettings, connect: Connect, tmp_path: Path, command: str, eventually: Any) -> None:
    """Submit a job whose code takes until there is a file ``go`` to be fetched, and break off meanwhile."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").write_text(
        f"#!/bin/sh\ntouch {tmp_path}/fetching; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done\n"
    )
    (tools / "git").chmod(0o755)
    python = tools / "python"
    python.write_text(f'#!/bin/sh\nPATH={tools}:$PATH\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    slow = dataclasses.replace(settings, python=str(python))
    source = GitSource("code", "", "git+https://host/x.git", url="https://host/x.git")
    dying = Cluster(slow, connect, retry_for_s=0)
    thread = threading.Thread(
        target=lambda: _ignore(lambda: jobs.submit(dying, command, job_id="job", sources=[source]))
    )
    thread.start()
    eventually((tmp_path / "fetching").exists)
    dying.interrupt()
    thread.join()


def _ignore(call: Callable[[], Any]) -> None:
    with contextlib.suppress(GpuClusterError):
        call()


def _processes(pattern: str, root_dir: str) -> list[str]:
    listing = subprocess.run(["pgrep", "-af", pattern], capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if root_dir in line]


# -- signals and time --------------------------------------------------------------------------------------------


@pytest.fixture
def interrupts(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Return a function after which a signal handler interrupts the cluster, once, in a moment."""

    def after(seconds: float, target: Cluster = cluster) -> None:
        signal.signal(signal.SIGALRM, lambda *_: target.interrupt())
        signal.setitimer(signal.ITIMER_REAL, seconds)

    old = signal.getsignal(signal.SIGALRM)
    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_a_call_that_waits_is_interrupted(cluster: Cluster, interrupts: Callable[..., None]) -> None:
    jobs.submit(cluster, "trap '' TERM; sleep 30", job_id="job", grace_s=30)
    jobs.wait(cluster, "job", JobState.RUNNING)
    interrupts(0.3)
    began = time.monotonic()
    with pytest.raises(GpuClusterConnectionError):
        cluster.cancel(["job"], requested_by="me", wait_s=20)
    assert time.monotonic() - began < 15
    assert cluster.statuses(["job"])[0].state is JobState.RUNNING


def test_waiting_for_the_next_try_is_interrupted(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, interrupts: Callable[..., None]
) -> None:
    cut_proxy.refusing = True
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        interrupts(2.0, cluster)
        began = time.monotonic()
        with pytest.raises(GpuClusterConnectionError):
            cluster.capacity()
        assert 1.9 < time.monotonic() - began < 15
        cut_proxy.refusing = False
        assert cluster.capacity()


def test_an_interruption_while_it_connects_counts(cluster_settings: ClusterSettings, ssh_connect: Connect) -> None:
    """There is nothing to shut down yet."""
    connects: list[int] = []

    def connect() -> paramiko.SSHClient:
        connects.append(1)
        if len(connects) == 1:
            cluster.interrupt()
        return ssh_connect()

    with Cluster(cluster_settings, connect) as cluster:
        with pytest.raises(GpuClusterConnectionError, match="interrupted"):
            cluster.capacity()
        assert cluster.capacity()


def test_an_interruption_between_the_parts_of_a_call_counts(cluster: Cluster, tmp_path: Path) -> None:
    """While the worker reads its own files no call waits, and yet the user wants the whole thing to end."""
    (tmp_path / "data.bin").write_bytes(b"1")
    (source,) = parse_sources(code=None, data=str(tmp_path / "data.bin"), models=None, base_dir=tmp_path)

    class Slow(type(source)):  # type: ignore[misc]
        def entries(self) -> Any:
            cluster.interrupt()
            return super().entries()

    slow = Slow(**{field.name: getattr(source, field.name) for field in dataclasses.fields(source)})
    slow.__dict__["digest"] = source.digest  # type: ignore[attr-defined]
    with pytest.raises(GpuClusterConnectionError):
        cluster.stage("job", [slow], record=jobs.record())
    assert cluster.capacity()


def test_a_long_silence_on_the_way_is_no_fault_as_long_as_the_program_works(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "IDLE_TIMEOUT_S", 5.7)
    jobs.submit(cluster, "trap '' TERM; sleep 30", job_id="job", grace_s=30)
    jobs.wait(cluster, "job", JobState.RUNNING)
    (status,) = cluster.cancel(["job"], requested_by="me", wait_s=6.5)
    assert status.state is JobState.RUNNING


def test_a_server_that_falls_silent_is_given_up(
    cluster_settings: ClusterSettings, ssh_connect: Connect, cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port), retry_for_s=0) as cluster:
        jobs.submit(cluster, "trap '' TERM; sleep 30", job_id="job", grace_s=30)
        jobs.wait(cluster, "job", JobState.RUNNING)
        monkeypatch.setattr(connection_module, "IDLE_TIMEOUT_S", 1.0)
        began = time.monotonic()
        with pytest.raises(GpuClusterConnectionError, match="the connection broke during cancel"):
            cluster.cancel(["job"], requested_by="me", wait_s=20)
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("fault", ["refused", "unknown"])
def test_an_address_that_is_wrong_is_given_up_soon(
    cluster_settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(retry, "RETRY_WRONG_ADDRESS_FOR_S", 0.5)

    def connect() -> paramiko.SSHClient:
        if fault == "unknown":
            raise socket.gaierror(-2, "Name or service not known")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        paramiko.SSHClient().connect("127.0.0.1", port, timeout=5)
        raise AssertionError

    began = time.monotonic()
    with Cluster(cluster_settings, connect) as cluster, pytest.raises(GpuClusterConnectionError):
        cluster.capacity()
    assert 0.5 < time.monotonic() - began < 30


def test_a_wrong_key_is_not_tried_again(cluster_settings: ClusterSettings) -> None:
    tries: list[int] = []

    def connect() -> paramiko.SSHClient:
        tries.append(1)
        raise GpuClusterAuthenticationError("no")

    with Cluster(cluster_settings, connect) as cluster, pytest.raises(GpuClusterAuthenticationError):
        cluster.capacity()
    assert tries == [1]


# -- secrets -----------------------------------------------------------------------------------------------------


def test_values_of_the_environment_are_seen_by_the_job_alone(
    cluster: Cluster,
    cluster_settings: ClusterSettings,
    cluster_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    eventually: Any,
) -> None:
    secret = f"hunter2-{os.getpid()}"
    caplog.set_level(logging.DEBUG)
    jobs.submit(cluster, "sleep 60", job_id="first", gpus=4)
    command = f"test ${{#TOKEN}} = {len(secret)} && touch {tmp_path}/seen; sleep 60"
    jobs.submit(cluster, command, job_id="job", gpus=4, env={"TOKEN": secret})

    # As long as it waits, one file has it, for this user only.
    holders = _files_with(cluster_folder, secret)
    assert [(path.name, path.stat().st_mode & 0o777) for path in holders] == [("env.json", 0o600)]
    assert secret not in subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    cluster.cancel(["first"], requested_by="me", wait_s=10)
    jobs.wait(cluster, "job", JobState.RUNNING)
    eventually((tmp_path / "seen").exists)
    assert _files_with(cluster_folder, secret) == []
    assert secret not in subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    cluster.cancel(["job"], requested_by="me", wait_s=10)
    assert _files_with(cluster_folder, secret) == []
    spec = json.loads((Path(cluster_settings.root_dir) / "job" / ".job" / "spec.json").read_text())
    assert spec["environment_names"] == ["TOKEN"]
    assert secret not in caplog.text
    assert secret not in "".join(capfd.readouterr())


def _files_with(folder: Path, text: str) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and text.encode() in path.read_bytes():
            found.append(path)
    return found


# -- many jobs, and jobs that are not there ----------------------------------------------------------------------


def test_a_thousand_jobs_in_one_call(cluster: Cluster, cluster_settings: ClusterSettings) -> None:
    jobs.submit(cluster, "echo hello", job_id="job")
    ends(cluster, "job")
    root = Path(cluster_settings.root_dir)
    names = [f"job-{number}" for number in range(1000)]
    for name in names:
        (root / name).mkdir()
        (root / name / ".job").symlink_to(root / "job" / ".job")
    began = time.monotonic()
    statuses = cluster.statuses(names)
    assert time.monotonic() - began < 30  # it is far less; see benchmarks/
    assert [status.job_id for status in statuses] == names
    assert {status.state for status in statuses} == {JobState.SUCCEEDED}


def test_jobs_that_cannot_be_read_do_not_keep_others_from_theirs(
    cluster: Cluster, cluster_settings: ClusterSettings
) -> None:
    jobs.submit(cluster, "true", job_id="good")
    ends(cluster, "good")
    root = Path(cluster_settings.root_dir)
    shutil.copytree(root / "good", root / "bad")
    (root / "bad" / ".job" / "attempts" / "1" / "exit.json").write_text('{"state": "SUC')
    found = cluster.statuses(["bad", "good", "missing"])
    assert [str(status.state) for status in found] == ["UNKNOWN", "SUCCEEDED", "LOST"]


def test_a_job_that_deletes_its_own_directory_is_not_launched_beside_itself(
    cluster: Cluster, cluster_settings: ClusterSettings, tmp_path: Path, eventually: Any
) -> None:
    command = f'echo run >> {tmp_path}/runs; until rm -rf "$JOB_DIR"; do :; done; touch {tmp_path}/gone; sleep 3'
    jobs.submit(cluster, command, job_id="job")
    eventually((tmp_path / "gone").exists)
    for key in ("try-1", "try-2"):
        _ignore(lambda key=key: jobs.submit(cluster, command, job_id="job", request_key=key))  # type: ignore[misc]
    time.sleep(0.5)
    assert (tmp_path / "runs").read_text() == "run\n"


@pytest.mark.parametrize("crash", ["before attempt", "between the folders"])
def test_a_new_generation_after_a_crash_in_the_middle_of_one(
    cluster: Cluster, cluster_settings: ClusterSettings, crash: str
) -> None:
    """The outputs of the generation before were put aside, and then the cluster went down."""
    job = Path(cluster_settings.root_dir) / "job"
    jobs.submit(cluster, "echo 1 > $OUTPUT_DIR/first", job_id="job")
    ends(cluster, "job")
    (job / "outputs").rename(job / ".job" / "attempts" / "1" / "outputs")
    if crash == "before attempt":
        (job / "outputs").mkdir()
    submission = jobs.submit(cluster, "test ! -e $OUTPUT_DIR/first", job_id="job", generation="1", request_key="2")
    assert submission.created
    assert jobs.wait(cluster, "job").attempt == 2
    assert ends(cluster, "job") == ["SUCCEEDED"]
