"""Which cipher a connection gets: a fast one where both sides have it, unless the connection says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from tests.servers.sshd import RealSshd, login

Cipher = Callable[..., str]


@pytest.fixture
def cipher(monkeypatch: pytest.MonkeyPatch) -> Cipher:
    """Return a function that connects twice over one hook, and returns the cipher of the second connection."""

    def connect(server: RealSshd, **extra: Any) -> str:
        keys = {"private_key": server.client_key, "host_key": server.host_key}
        connection = {"conn_type": "gpu_cluster", "host": server.host, "port": server.port, "login": login()}
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps({**connection, "extra": {**keys, **extra}}))
        hook = GpuClusterHook()
        hook.connect().close()
        with hook.connect() as client:
            transport = client.get_transport()
            assert transport is not None
            assert transport.local_cipher == transport.remote_cipher  # type: ignore[attr-defined]
            return str(transport.local_cipher)

    return connect


@pytest.fixture
def old_server(tmp_path: Path) -> Iterator[RealSshd]:
    """Return a server that knows no AES-GCM."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    server = RealSshd(folder, more="Ciphers aes256-ctr,aes128-ctr")
    server.start()
    yield server
    server.stop()


def test_aes_gcm_where_both_sides_have_it(sshd: RealSshd, cipher: Cipher) -> None:
    assert cipher(sshd) == "aes128-gcm@openssh.com"


def test_what_there_is_elsewhere(old_server: RealSshd, cipher: Cipher) -> None:
    assert cipher(old_server) == "aes128-ctr"


def test_the_connection_may_say_otherwise(sshd: RealSshd, cipher: Cipher) -> None:
    assert cipher(sshd, ciphers=["aes256-ctr"]) == "aes256-ctr"
    assert cipher(sshd, disabled_algorithms={"ciphers": ["aes128-gcm@openssh.com"]}) == "aes128-ctr"
    # What it says of other algorithms does not count.
    assert cipher(sshd, disabled_algorithms={"pubkeys": ["ssh-dss"]}) == "aes128-gcm@openssh.com"


def test_a_cipher_that_the_server_does_not_have(old_server: RealSshd, cipher: Cipher) -> None:
    with pytest.raises(GpuClusterSetupError, match="no acceptable ciphers"):
        cipher(old_server, ciphers=["aes256-gcm@openssh.com"])
