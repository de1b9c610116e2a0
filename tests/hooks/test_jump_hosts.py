"""Jump hosts: from the field jump_conn_id, or from ~/.ssh/config, on real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterHostKeyError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness.patience import PATIENCE_S
from tests.hooks.conftest import Connect
from tests.servers.sshd import RealSshd, login


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """Return another server, which has its own keys and passes connections on to the cluster's."""
    server = RealSshd(tmp_path_factory.mktemp("gateway"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def behind(sshd: RealSshd, gateway: RealSshd, home: Path, connection: Connect) -> Callable[..., None]:
    """Return a function that defines the cluster's connection ``c``, and that of its jump host ``gateway``."""

    def define(*, gateway_has: dict[str, Any] | None = None, **fields: Any) -> None:
        keys = {"private_key": gateway.client_key, "host_key": gateway.host_key}
        connection("gateway", gateway, conn_type="ssh", **{**keys, **(gateway_has or {})})
        own = {"private_key": sshd.client_key, "host_key": sshd.host_key, "jump_conn_id": "gateway"}
        connection("c", sshd, **{**own, **fields})

    return define


def peer_port(client: paramiko.SSHClient) -> int:
    """Return the port of the server that sees the client's network connection as its own."""
    _, stdout, _ = client.exec_command("echo $SSH_CONNECTION")
    return int(stdout.read().split()[3])


def goes_through(client: paramiko.SSHClient, server: RealSshd) -> bool:
    transport = client.get_transport()
    assert transport is not None
    jump = transport.sock.get_transport()  # type: ignore[union-attr]
    return bool(jump.sock.getpeername()[1] == server.port)


def test_a_connection_through_a_jump_host(
    sshd: RealSshd, gateway: RealSshd, behind: Callable[..., None], eventually: Callable[..., Any]
) -> None:
    behind()
    client = GpuClusterHook("c").connect()
    assert goes_through(client, gateway)
    assert peer_port(client) == sshd.port
    jump = client.get_transport().sock.get_transport()  # type: ignore[union-attr]
    client.close()
    assert eventually(lambda: not jump.is_active())


def test_what_a_jump_host_refuses_is_told_in_its_name(
    sshd: RealSshd, gateway: RealSshd, behind: Callable[..., None]
) -> None:
    its_name = r"cluster .* \(connection c\): its jump host .* \(connection gateway\)"
    for gateway_has, kind, told in (
        ({"private_key": sshd.client_key}, GpuClusterAuthenticationError, ": it refused the user"),
        ({"host_key": sshd.host_key}, GpuClusterHostKeyError, ": its host key has changed"),
        ({"host_key": None}, GpuClusterHostKeyError, ": its host key is not known"),
        ({"port": 1}, GpuClusterConnectionError, ": nothing accepts connections on port 1"),
    ):
        behind(gateway_has=gateway_has)
        with pytest.raises(kind, match=its_name + told):
            GpuClusterHook("c").connect()
    behind(port=1)
    with pytest.raises(
        GpuClusterConnectionError, match=its_name + r" cannot connect to 127\.0\.0\.1:1: Connect failed"
    ):
        GpuClusterHook("c").connect()
    # What the cluster refuses is told in its own name.
    behind(private_key=gateway.client_key)
    with pytest.raises(GpuClusterAuthenticationError, match=r"\(connection c\): it refused the user"):
        GpuClusterHook("c").connect()


def test_a_jump_host_that_forwards_nothing(
    tmp_path: Path, sshd: RealSshd, behind: Callable[..., None], connection: Connect
) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    closed = RealSshd(folder, more="AllowTcpForwarding no")
    closed.start()
    try:
        behind()
        connection("gateway", closed, conn_type="ssh", private_key=closed.client_key, host_key=closed.host_key)
        told = (
            rf"does not allow connections to {sshd.host}:{sshd.port}: Administratively prohibited.*AllowTcpForwarding"
        )
        with pytest.raises(GpuClusterAuthenticationError, match=told):
            GpuClusterHook("c").capacity()  # and there is no second try
    finally:
        closed.stop()


@pytest.mark.parametrize(
    ("jump", "told"),
    [
        ("c", "field jump_conn_id is 'c', which would be its own jump host: c -> c"),
        ("circle", "field jump_conn_id is 'c', which would be its own jump host: c -> circle -> c"),
        ("unheard_of", "field jump_conn_id is 'unheard_of', and that connection cannot be read: .*isn't defined"),
    ],
)
def test_a_jump_host_that_cannot_be(
    gateway: RealSshd, behind: Callable[..., None], connection: Connect, jump: str, told: str
) -> None:
    behind(jump_conn_id=jump)
    connection("circle", gateway, jump_conn_id="c")
    with pytest.raises(GpuClusterSetupError, match=told):
        GpuClusterHook("c").connect()


def test_proxy_jump(sshd: RealSshd, gateway: RealSshd, home: Path, connection: Connect) -> None:
    (home / ".ssh/known_hosts").write_text(f"[{gateway.host}]:{gateway.port} {gateway.host_key}\n")
    (home / ".ssh/config").write_text(f"""
Host gpu01
    HostName {sshd.host}
    Port {sshd.port}
    ProxyJump {login()}@{gateway.host}:{gateway.port},second
Host second
    HostName {gateway.host}
    Port {gateway.port}
Match originalhost {gateway.host},second
    IdentityFile {gateway.client_key_file}
""")
    connection("c", sshd, host="gpu01", port=None, private_key=sshd.client_key, host_key=sshd.host_key)
    with GpuClusterHook("c").connect() as client:
        assert goes_through_two(client)
        assert peer_port(client) == sshd.port
    (home / ".ssh/known_hosts").unlink()
    told = rf"its jump host {login()}@{gateway.host}:{gateway.port} \(ProxyJump of ~/.ssh/config\): its host key is not"
    with pytest.raises(GpuClusterHostKeyError, match=told):
        GpuClusterHook("c").connect()


def goes_through_two(client: paramiko.SSHClient) -> bool:
    sock: Any = client.get_transport()
    for _ in range(2):
        sock = sock.sock
        assert isinstance(sock, paramiko.Channel)
        sock = sock.get_transport()
    return not isinstance(sock.sock, paramiko.Channel)


def test_a_jump_host_that_would_be_its_own(sshd: RealSshd, home: Path, connection: Connect) -> None:
    (home / ".ssh/config").write_text("Host *\n  ProxyJump gate\n")
    connection("c", sshd, private_key=sshd.client_key, host_key=sshd.host_key)
    with pytest.raises(GpuClusterSetupError, match=r"ProxyJump gate of ~/.ssh/config applies to that jump host itself"):
        GpuClusterHook("c").connect()


def test_a_proxy_command(sshd: RealSshd, gateway: RealSshd, home: Path, connection: Connect) -> None:
    options = "-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    command = f"ssh {options} -i KEY -p {gateway.port} -W %h:%p {gateway.host}"
    connection("c", sshd, private_key=sshd.client_key, host_key=sshd.host_key)
    (home / ".ssh/config").write_text(
        f"Host *\n  ProxyCommand {command.replace('KEY', str(gateway.client_key_file))}\n"
    )
    with GpuClusterHook("c").connect() as client:
        assert peer_port(client) == sshd.port
    for written, kind, told in (
        (
            command.replace("KEY", str(sshd.client_key_file)),
            GpuClusterConnectionError,
            r"code 255: .*Permission denied",
        ),
        ("sh -c 'echo no way >&2; exit 3'", GpuClusterConnectionError, "it ended with exit code 3: no way"),
        ("no-such-program %h", GpuClusterSetupError, "`no-such-program 127.0.0.1` .* cannot be started: No such file"),
    ):
        (home / ".ssh/config").write_text(f"Host *\n  ProxyCommand {written}\n")
        with pytest.raises(kind, match=f"the ProxyCommand .*{told}"):
            GpuClusterHook("c").connect()


def test_a_job_through_a_jump_host_whose_connection_breaks(
    gateway: RealSshd,
    gpu_cluster_conn: dict[str, Any],
    home: Path,
    connection: Connect,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    connection("gateway", gateway, conn_type="ssh", private_key=gateway.client_key, host_key=gateway.host_key)
    gpu_cluster_conn["extra"]["jump_conn_id"] = "gateway"
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(gpu_cluster_conn))
    content = bytes(range(256)) * 4096
    (tmp_path / "data.bin").write_bytes(content)
    with GpuClusterHook() as hook:
        command = 'cp $DATA_DIR/data.bin "$OUTPUT_DIR"; echo done'
        handle = hook.submit(job_id="far", data="data.bin", command=command, base_dir=tmp_path)
        gateway.stop()
        gateway.start()
        assert eventually(lambda: hook.status(handle).final)
        assert hook.status(handle).state is JobState.SUCCEEDED
        hook.collect(handle, tmp_path / "here", include="data.bin")
        assert (tmp_path / "here/data.bin").read_bytes() == content


def test_an_interrupt_reaches_through_jump_hosts(gpu_cluster_conn: dict[str, Any], behind: Callable[..., None]) -> None:
    behind()
    hook = GpuClusterHook("c")
    link = Connection(hook.settings, hook.connect)
    channel = link.start("sleep 1000")
    began = time.monotonic()
    threading.Timer(0.1, link.interrupt).start()
    assert channel.recv(1) == b""
    assert time.monotonic() - began < PATIENCE_S
    link.close()
