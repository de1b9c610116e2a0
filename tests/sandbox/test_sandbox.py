"""The sandbox cluster, seen by an ordinary SSH client."""

from __future__ import annotations

import base64
import gc
import hashlib
import io
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.gpu_run.linux.processes import with_environment
from airflow_provider_gpu_cluster.sandbox import Sandbox
from airflow_provider_gpu_cluster.sandbox.__main__ import main
from airflow_provider_gpu_cluster.sandbox.cluster import marker
from tests.harness.patience import PATIENCE_S

MIB = 1 << 20


def connect(connection: dict[str, Any]) -> paramiko.SSHClient:
    """Connect the way the hook does, with the connection's own key and pinned host key."""
    extra = connection["extra"]
    kind, key = extra["host_key"].split()
    client = paramiko.SSHClient()
    client.get_host_keys().add(
        f"[{connection['host']}]:{connection['port']}",
        kind,
        paramiko.PKey.from_type_string(kind, base64.b64decode(key)),
    )
    client.connect(
        connection["host"],
        connection["port"],
        connection["login"],
        pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(extra["private_key"])),
        allow_agent=False,
        look_for_keys=False,
    )
    return client


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[paramiko.SSHClient]:
    with connect(sandbox.connection) as client:
        yield client


def run(client: paramiko.SSHClient, command: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    stdin, stdout, stderr = client.exec_command(command, timeout=PATIENCE_S)
    with stdin:
        for start in range(0, len(data), MIB):
            stdin.channel.sendall(data[start : start + MIB])
        stdin.channel.shutdown_write()
        return_value = stdout.read(), stderr.read()
        return stdout.channel.recv_exit_status(), *return_value


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_gets_its_input_and_answers_on_both_streams(client: paramiko.SSHClient) -> None:
    assert run(client, "cat; echo oops >&2; exit 7", b"\x00\xff\n") == (7, b"\x00\xff\n", b"oops\n")


def test_a_command_is_shell_text(client: paramiko.SSHClient) -> None:
    status, output, _ = run(client, "for word in 'a b' c; do echo \"$word\"; done | tail -n 1 && true")
    assert (status, output) == (0, b"c\n")


def test_a_signal_that_ends_a_command_is_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(sandbox.connection["extra"]["private_key"])
    key.chmod(0o600)
    command = ["ssh", "-i", str(key), "-p", str(sandbox.port), "-o", "StrictHostKeyChecking=no"]
    command += [
        "-o",
        f"UserKnownHostsFile={tmp_path / 'known'}",
        "-F",
        "none",
        f"{sandbox.login}@{sandbox.host}",
    ]
    ended = subprocess.run([*command, "kill -9 $$"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 255
    fine = subprocess.run([*command, "echo fine"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (fine.returncode, fine.stdout) == (0, "fine\n")


def test_large_streams_pass_both_ways_at_once(client: paramiko.SSHClient) -> None:
    data = os.urandom(MIB) * 24
    stdin, stdout, _ = client.exec_command("cat")
    digest = hashlib.sha256()

    def read() -> None:
        while piece := stdout.channel.recv(MIB):
            digest.update(piece)

    reader = threading.Thread(target=read)
    reader.start()
    for start in range(0, len(data), MIB):
        stdin.channel.sendall(data[start : start + MIB])
    stdin.channel.shutdown_write()
    reader.join()
    assert digest.digest() == hashlib.sha256(data).digest()


def test_output_that_nobody_reads_is_not_buffered_without_bound(
    sandbox: Sandbox, client: paramiko.SSHClient, eventually: Callable[..., Any]
) -> None:
    written = sandbox.folder / "written"
    _, stdout, _ = client.exec_command(
        f"i=0; while [ $i -lt 64 ]; do head -c {MIB} /dev/zero; i=$((i+1)); echo $i >> {written}; done"
    )
    seen = [-1, 0]

    def stands_still() -> bool:
        seen.append(len(written.read_text().split()) if written.exists() else 0)
        return seen[-1] > 0 and len(set(seen[-4:])) == 1

    eventually(stands_still, every_s=0.25)
    assert seen[-1] < 32
    total = 0
    while piece := stdout.channel.recv(MIB):
        total += len(piece)
    assert total == 64 * MIB


def test_a_client_that_goes_away_ends_the_input_of_its_command(
    sandbox: Sandbox, client: paramiko.SSHClient, eventually: Callable[..., Any]
) -> None:
    note = sandbox.folder / "note"
    _, stdout, _ = client.exec_command(f"echo started; cat > /dev/null; echo ended > {note}")
    assert stdout.readline() == "started\n"
    client.close()
    eventually(note.exists)


def test_what_left_the_session_outlives_the_connection_and_not_the_sandbox() -> None:
    with Sandbox() as sandbox:
        with connect(sandbox.connection) as client:
            _, output, _ = run(client, "setsid sleep 300 < /dev/null > /dev/null 2>&1 & echo $!")
        pid = int(output)
        assert alive(pid)
    assert not alive(pid)
    assert not sandbox.folder.exists()


def test_a_process_that_only_knows_the_connection_is_left_alone(sandbox: Sandbox) -> None:
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, **sandbox.environ()})
    try:
        assert other.pid not in with_environment(marker(sandbox.folder))
        sandbox.stop()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_command_that_outlives_its_connection_is_ended_and_waited_for(
    sandbox: Sandbox, recwarn: pytest.WarningsRecorder
) -> None:
    with connect(sandbox.connection) as client:
        _, stdout, _ = client.exec_command("echo $$; trap '' HUP PIPE; sleep 300")
        pid = int(stdout.readline())
        sandbox.stop()
    # Nobody else can: it is this process's child.
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_many_clients_at_once(sandbox: Sandbox) -> None:
    def ask(number: int) -> bytes:
        with connect(sandbox.connection) as client:
            return run(client, f"echo {number}")[1]

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(ask, range(60)))
    assert answers == [f"{number}\n".encode() for number in range(60)]


def test_many_commands_at_once_over_one_connection(client: paramiko.SSHClient) -> None:
    channels = [client.exec_command("read line; echo $line") for _ in range(20)]
    for number, (stdin, stdout, _) in reversed(list(enumerate(channels))):
        stdin.write(f"{number}\n")
        stdin.flush()
        assert stdout.read() == f"{number}\n".encode()


def test_files_over_sftp(sandbox: Sandbox, client: paramiko.SSHClient) -> None:
    data = os.urandom(3 * MIB)
    with client.open_sftp() as sftp:
        assert sftp.normalize(".") == str(Path.home())
        sftp.putfo(io.BytesIO(data), f"{sandbox.folder}/.part")
        sftp.posix_rename(f"{sandbox.folder}/.part", f"{sandbox.folder}/whole")
        with pytest.raises(FileNotFoundError):
            sftp.stat(f"{sandbox.folder}/.part")
    assert (sandbox.folder / "whole").read_bytes() == data


def test_airflow_settings_do_not_reach_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "secret")
    with Sandbox() as sandbox, connect(sandbox.connection) as client:
        _, output, _ = run(client, "env")
    assert b"AIRFLOW" not in output
    assert f"GPU_CLUSTER_SANDBOX={sandbox.folder}".encode() in output


def test_the_interpreter_of_the_connection_runs_there(sandbox: Sandbox, client: paramiko.SSHClient) -> None:
    python = sandbox.connection["extra"]["python"]
    status, output, _ = run(client, f"{shlex.quote(python)} -c 'import sys; print(sys.version_info[:2])'")
    assert (status, output.decode().strip()) == (0, str(sys.version_info[:2]))


@pytest.mark.parametrize("change", ["password", "key"])
def test_nobody_else_gets_in(sandbox: Sandbox, change: str) -> None:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    secret: dict[str, Any] = {"password": "guess"} if change == "password" else {"pkey": paramiko.ECDSAKey.generate()}
    with client, pytest.raises(paramiko.SSHException):
        client.connect(sandbox.host, sandbox.port, sandbox.login, allow_agent=False, look_for_keys=False, **secret)


def test_the_environment_variable_is_the_connection(sandbox: Sandbox) -> None:
    assert {name: json.loads(value) for name, value in sandbox.environ().items()} == {
        "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT": sandbox.connection
    }


def test_a_folder_of_ones_own_keeps_keys_and_jobs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with Sandbox(root=folder) as first, connect(first.connection) as client:
        run(client, f"echo kept > {folder}/file")
        before = first.connection
    assert (folder / "file").read_text() == "kept\n"
    assert stat.S_IMODE((folder / "client_key").stat().st_mode) == 0o600
    with Sandbox(root=folder, port=before["port"]) as second:
        assert second.connection == before


def test_what_its_gpus_are_said_to_do() -> None:
    with Sandbox(fake_gpus=[{"percent": 40}]) as sandbox, connect(sandbox.connection) as client:
        code, out, _ = run(client, 'cat "$GPU_RUN_FAKE_NVML"')
        assert (code, json.loads(out)) == (0, {"gpus": [{"percent": 40}]})
        assert str(sandbox.folder / "gpus.json").encode() in run(client, "env")[1]


@pytest.fixture(scope="module")
def two() -> Iterator[Sandbox]:
    with Sandbox(gpus=[2, 1]) as sandbox:
        yield sandbox


def test_several_clusters_and_their_pool(two: Sandbox) -> None:
    connections = {name: json.loads(value) for name, value in two.environ().items()}
    pool = connections.pop("AIRFLOW_CONN_GPU_CLUSTER_POOL")
    assert (pool["conn_type"], pool["extra"]) == (
        "gpu_cluster_pool",
        {"members": ["gpu01", "gpu02"], "policy": "soonest"},
    )
    assert two.conn_ids == ["gpu01", "gpu02"]
    assert {name: value["extra"]["virtual_gpus"] for name, value in connections.items()} == {
        "AIRFLOW_CONN_GPU01": 2,
        "AIRFLOW_CONN_GPU02": 1,
    }
    for of_each in ("port", "root_dir", "lease_dir"):
        assert len({getattr(cluster, of_each) for cluster in two.clusters}) == 2


@pytest.mark.parametrize(("fault", "is_running"), [("cut_off", True), ("hang", True), ("crash", False)])
def test_one_of_several_fails_and_is_brought_back(two: Sandbox, fault: str, is_running: bool) -> None:
    bad, good = two.clusters
    with connect(bad.connection) as client:
        pid = int(run(client, "setsid sleep 300 < /dev/null > /dev/null 2>&1 & echo $!")[1])
        getattr(bad, fault)()
        assert alive(pid) == is_running
        channel = socket.create_connection((bad.host, bad.port)) if fault == "hang" else None
        if channel is None:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((bad.host, bad.port))
        else:
            channel.settimeout(0.2)
            with pytest.raises(TimeoutError):
                channel.recv(1)
            channel.close()
    with connect(good.connection) as client:
        assert run(client, "echo here")[1] == b"here\n"
    before = bad.connection
    bad.restore()
    assert bad.connection == before
    with connect(bad.connection) as client:
        assert run(client, f"kill {pid}; echo back")[1] == b"back\n"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gpus": [4, 2], "clusters": 3}, "for 2 clusters, not for 3"),
        ({"clusters": 0}, "at least one cluster"),
        ({"gpus": [4, 0]}, "at least one GPU"),
    ],
)
def test_numbers_that_do_not_go_together(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox(**asked)


def test_the_command_lets_a_cluster_fail() -> None:
    command = [sys.executable, "-m", "airflow_provider_gpu_cluster.sandbox", "--clusters", "2", "--gpus", "2,1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = ""
        while "# To stop" not in shown:
            shown += process.stdout.readline()
        assert "AIRFLOW_CONN_GPU_CLUSTER_POOL=" in shown
        process.stdin.write("cut gpu02\nrestore gpu02\nbreak gpu01\n")
        said = [process.stdout.readline() for _ in range(3)]
        assert ["cannot be reached" in said[0], "there again" in said[1], "Not understood" in said[2]] == [True] * 3
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_a_port_that_is_taken_is_an_error(sandbox: Sandbox) -> None:
    other = Sandbox(port=sandbox.port)
    with pytest.raises(OSError, match=str(sandbox.port)):
        other.start()
    assert not other.folder.exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_a_connection_that_works(stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "airflow_provider_gpu_cluster.sandbox", "--gpus", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        lines: list[str] = []
        while not lines or "stop" not in lines[-1]:
            lines.append(output.readline())
            assert lines[-1], "it ended by itself"
        shell = subprocess.run(
            ["sh", "-c", "".join(lines) + 'printf %s "$AIRFLOW_CONN_GPU_CLUSTER_DEFAULT"'],
            capture_output=True,
            text=True,
            check=True,
        )
        connection = json.loads(shell.stdout)
        assert connection["extra"]["virtual_gpus"] == 3
        with connect(connection) as client:
            assert run(client, "echo hello")[1] == b"hello\n"
            run(client, "setsid sleep 300 < /dev/null > /dev/null 2>&1 &")
        process.send_signal(stop)
        assert process.wait(PATIENCE_S) == 0
    folder = Path(connection["extra"]["root_dir"]).parent
    assert not folder.exists()
    assert with_environment(marker(folder)) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpus", "4,"], "'4,' is no number of GPUs, and not one for each cluster, such as 8,4,2"),
        (["--gpus", "a"], "'a' is no number of GPUs"),
        (["--gpus", "0"], "must be at least 1"),
        (["--clusters", "2", "--gpus", "8,4,2"], "numbers of GPUs are given for 3 clusters, not for 2"),
    ],
)
def test_arguments_that_cannot_be_used_are_told(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sandbox", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert told in capsys.readouterr().err
