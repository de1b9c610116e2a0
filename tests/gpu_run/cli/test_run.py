"""``gpu-run`` for a person on the host: the same pool, and a process to follow."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.store.directories import Attempt
from airflow_provider_gpu_cluster.gpu_run.store.records import read_json
from tests.gpu_run.host import Host, is_alive
from tests.harness.patience import PATIENCE_S


@pytest.fixture
def host(cluster_folder: Path) -> Host:
    """A host that has run a job before, as ``gpu-run`` learns from that which GPUs there are."""
    host = Host(cluster_folder)
    os.chmod(host.program, 0o755)
    os.symlink(os.path.basename(host.program), os.path.join(host.root.own, "gpu-run"))
    host.engine.launch([])
    return host


@pytest.fixture
def folder(cluster_folder: Path) -> Path:
    folder = cluster_folder / "somewhere else"
    folder.mkdir()
    return folder


def gpu_run(host: Host, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [os.path.join(host.root.own, "gpu-run"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)


def script(folder: Path, text: str, name: str = "my script.sh", mode: int = 0o644) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return name


def start(host: Host, folder: Path, text: str, *options: str, arguments: tuple[str, ...] = ()) -> int:
    done = gpu_run(host, folder, *options, script(folder, text), *arguments)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def attempt(host: Host) -> Attempt:
    (name,) = [name for name in os.listdir(host.root.path) if name.startswith("my_script")]
    return host.attempt(name)


def shown_by_ps(pid: int) -> bool:
    return subprocess.run(["ps", "-p", str(pid)], stdout=subprocess.DEVNULL).returncode == 0


def test_it_prints_a_process_id_and_nothing_else(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    text = 'echo "$PWD|$#|$2|$CUDA_VISIBLE_DEVICES"; touch mark; sleep 0.5'
    done = gpu_run(host, folder, "--gpus", "2", "--memory", "32G", script(folder, text), "--gpus", "a 'b\" $c")
    assert done.stdout.strip().isdigit()
    assert done.stdout.count("\n") == 1
    pid = int(done.stdout)
    assert shown_by_ps(pid)
    eventually(lambda: not shown_by_ps(pid))
    ended = attempt(host).ended()
    assert ended is not None
    assert ended["state"] == "SUCCEEDED"
    log = Path(attempt(host).job.at("logs", "training.log"))
    assert log.read_text() == f"{folder}|2|a 'b\" $c|0,1\n"
    assert (folder / "mark").exists()
    assert str(log) in done.stderr


def test_a_script_that_can_run_by_itself_does(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    name = script(folder, "#!/usr/bin/env -S bash --posix\necho $POSIXLY_CORRECT$- > out\n", "x.sh", 0o755)
    done = gpu_run(host, folder, f"./{name}")
    eventually(lambda: not shown_by_ps(int(done.stdout)))
    assert (folder / "out").read_text().startswith("y")


def test_its_records_are_those_of_any_job(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    pid = start(host, folder, "true")
    other = host.submit("true")
    eventually(lambda: not shown_by_ps(pid))
    assert {*attempt(host).request()} == {*host.attempt(other).request(), "cwd", "waiter"}
    assert attempt(host).request()["environment"] is None
    described, like = (json.loads(Path(job.spec).read_text()) for job in (attempt(host).job, host.job(other)))
    assert {*described} == {*like}
    assert described["by"]["folder"] == str(folder)


def test_its_gpus_are_of_the_same_pool(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    blocker = host.submit("sleep 1000", gpus=3)
    host.wait(blocker, state="RUNNING")
    pid = start(host, folder, "echo $CUDA_VISIBLE_DEVICES; sleep 1000", "--gpus", "2")
    eventually(lambda: "it needs 2 GPUs" in Path(attempt(host).at("supervisor.log")).read_text())
    assert shown_by_ps(pid)
    behind = host.submit("true", gpus=1)
    eventually(lambda: host.status(behind).get("queue_place") == 2)
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    log = Path(attempt(host).job.at("logs", "training.log"))
    eventually(lambda: log.exists() and log.read_text() == "0,1\n")
    assert shown_by_ps(pid)
    host.wait(behind)
    # Its end is on record a moment before its guard gives the GPU back.
    eventually(lambda: host.engine.capacity()["free_gpus"] == 2)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not shown_by_ps(pid))
    eventually(lambda: host.engine.capacity()["free_gpus"] == 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["waiting", "running"])
def test_a_kill_ends_the_job(
    host: Host, folder: Path, eventually: Callable[..., Any], moment: str, number: signal.Signals
) -> None:
    if moment == "waiting":
        blocker = host.submit("sleep 1000", gpus=4)
        host.wait(blocker, state="RUNNING")
    pid = start(host, folder, "echo on; sleep 1000")
    job = attempt(host).job
    log = Path(job.at("logs", "training.log")) if moment == "running" else Path(attempt(host).at("supervisor.log"))
    eventually(lambda: log.exists() and log.read_text())
    os.kill(pid, number)
    eventually(lambda: not is_alive(pid))
    status = host.wait(job.job_id)
    assert status["state"] == ("LOST" if number == signal.SIGKILL else "CANCELLED")
    # Who asked is that process; whether anything of the job is left says /proc.
    eventually(lambda: not host.processes("wait-and-supervise"))
    assert not [path for path in Path("/proc").glob("[0-9]*/cwd") if _target(path) == str(folder)]


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def test_a_kill_right_after_the_start_is_not_lost(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    pid = start(host, folder, "sleep 1000")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: attempt(host).ended())
    ended = attempt(host).ended()
    assert ended is not None
    assert ended["state"] == "CANCELLED"


def test_limits_hold(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    start(host, folder, "sleep 1000", "--time-limit", "0.3")
    ended = eventually(lambda: attempt(host).ended())
    assert ended["reason"] == "time_limit"


def test_a_folder_that_is_gone_is_a_failure_to_launch(host: Host, folder: Path, eventually: Callable[..., Any]) -> None:
    blocker = host.submit("sleep 1000", gpus=4)
    host.wait(blocker, state="RUNNING")
    start(host, folder, "true")
    (folder / "my script.sh").unlink()
    folder.rmdir()
    os.kill(host.status(blocker)["pid"], signal.SIGTERM)
    ended = eventually(lambda: attempt(host).ended())
    assert ended["reason"] == "launch_failed"
    assert "somewhere else" in ended["message"]


def test_a_mutex_that_is_held_is_waited_for(
    host: Host, folder: Path, eventually: Callable[..., Any], cluster_folder: Path
) -> None:
    host.queue.open_leases()
    with open(cluster_folder / "leases" / "mutex", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pid = start(host, folder, "true")
        log = Path(attempt(host).at("supervisor.log"))
        eventually(lambda: "mutex locked" in log.read_text())
        assert is_alive(pid)
    eventually(lambda: attempt(host).ended())
    assert (read_json(attempt(host).at("exit.json")) or {})["state"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "0"], "--gpus must be at least 1"),
        (["--gpus", "-1"], "--gpus must be at least 1"),
        (["--gpus", "two"], "argument --gpus: invalid int value: 'two'"),
        (["--gpus", "5"], "the job asks for 5 GPUs, but .* has 4 x virtual"),
        (["--gpu-type", "H100"], "the job asks for 1 GPU of type 'H100', but .* has 4 x virtual"),
        (["--memory", "32GG"], "argument --memory: '32GG' is not a size; write 512M or 32G"),
        (["--memory", "0"], "argument --memory: '0' is not a size"),
        (["--time-limit", "0"], "--time-limit must be a number of seconds, more than 0"),
        (["--time-limit", "nan"], "--time-limit must be a number of seconds, more than 0"),
        (["--time-limit", "inf"], "--time-limit must be a number of seconds, more than 0"),
        (["--priority", "urgent"], "argument --priority: invalid choice: 'urgent'"),
        (["--no-such-option"], "unrecognized arguments|required: script"),
    ],
)
def test_bad_options_are_one_clear_line(host: Host, folder: Path, options: list[str], message: str) -> None:
    done = gpu_run(host, folder, *options, script(folder, "true"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert re.match(f"gpu-run: ({message})", done.stderr), done.stderr


def test_a_script_that_is_not_there(host: Host, folder: Path) -> None:
    done = gpu_run(host, folder, "no.sh")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no file {folder}/no.sh" in done.stderr
    assert (
        gpu_run(host, folder).stderr
        == "gpu-run: the following arguments are required: script, arguments (see gpu-run --help)\n"
    )
