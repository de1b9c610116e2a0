"""Logins that fail at servers of every kind: the error says what happened, and what to do."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.connection.retry import is_worth_another_try
from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from tests.servers.sshd import RealSshd

Change = Callable[..., None]


@pytest.fixture
def change(gpu_cluster_conn: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Change:
    """Return a function that changes fields of the connection."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def apply(port: int, **extra: Any) -> None:
        gpu_cluster_conn["port"] = port
        gpu_cluster_conn["extra"].update(extra)
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(gpu_cluster_conn))

    return apply


@pytest.fixture
def strict(tmp_path: Path, gpu_cluster_conn: dict[str, Any]) -> Iterator[Callable[[str], RealSshd]]:
    """Return a function that starts a server with further lines of configuration, for the connection's key."""
    servers: list[RealSshd] = []

    def start(more: str) -> RealSshd:
        folder = tmp_path / "strict"
        folder.mkdir()
        server = RealSshd(folder, more=more)
        servers.append(server)
        server.start()
        gpu_cluster_conn["extra"].update(private_key=server.client_key, host_key=server.host_key)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"", "did not agree on keys within 0.5 s.*conn_timeout"),
        (b"SSH-2.0-Slow_1\r\n", r"the SSH server \(SSH-2.0-Slow_1\) did not agree on keys within 0.5 s.*conn_timeout"),
        (b"HTTP/1.1 400 Bad Request\r\n" * 100, "no SSH server says its name.*fields host and port"),
    ],
)
def test_a_port_without_an_ssh_server(change: Change, says: bytes, words: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        taken: list[socket.socket] = []

        def answer() -> None:
            taken.append(listener.accept()[0])
            taken[0].sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        change(listener.getsockname()[1], conn_timeout=0.5)
        with pytest.raises(GpuClusterConnectionError, match=words):
            GpuClusterHook().connect()
        thread.join()
        taken[0].close()


def test_a_second_factor(change: Change, strict: Callable[[str], RealSshd]) -> None:
    server = strict(
        "Match User *\nKbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive"
    )
    change(server.port)
    words = "accepted the first factor of .*, and asks for a second.*exempt this key.*holds open"
    with pytest.raises(GpuClusterAuthenticationError, match=words):
        GpuClusterHook().connect()


def test_too_many_keys(
    change: Change,
    strict: Callable[[str], RealSshd],
    gpu_cluster_conn: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = strict("MaxAuthTries 2")
    del gpu_cluster_conn["extra"]["private_key"]
    change(server.port)
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
            for number in range(4):
                key = str(tmp_path / f"key{number}")
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
                subprocess.run(["ssh-add", "-q", key], check=True)
            with pytest.raises(GpuClusterAuthenticationError, match=r"MaxAuthTries.*holds 4.*SSH_AUTH_SOCK"):
                GpuClusterHook().connect()
        finally:
            agent.terminate()


def test_no_common_algorithm_is_not_tried_again(change: Change, strict: Callable[[str], RealSshd]) -> None:
    server = strict("KexAlgorithms curve25519-sha256")
    change(server.port, disabled_algorithms={"kex": ["curve25519-sha256", "curve25519-sha256@libssh.org"]})
    words = r"SSH server \(SSH-2.0-OpenSSH.*\) have no algorithm in common.*kex"
    with pytest.raises(GpuClusterSetupError, match=words) as raised:
        GpuClusterHook().connect()
    assert not is_worth_another_try(raised.value)


@pytest.mark.parametrize(
    "error", [TimeoutError(), EOFError(), ConnectionResetError(), ValueError(), RuntimeError("x: "), OSError(5, "")]
)
def test_no_error_is_without_words(error: Exception) -> None:
    assert words_of(error).strip()
    assert not words_of(error).endswith((":", " "))
