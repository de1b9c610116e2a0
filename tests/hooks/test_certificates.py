"""OpenSSH certificates of users, on a real server that trusts their authority."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterAuthenticationError, GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from tests.hooks.conftest import Connect
from tests.servers.sshd import RealSshd, login

Certified = Callable[..., Path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """Return a server that trusts an authority, ``ca`` in its folder."""
    folder = tmp_path_factory.mktemp("trusting")
    new_key(folder / "ca")
    server = RealSshd(folder, more=f"TrustedUserCAKeys {folder}/ca.pub")
    server.start()
    yield server
    server.stop()


def new_key(path: Path, kind: str = "ed25519") -> Path:
    small = ["-b", "1024"] if kind == "rsa" else []  # larger ones take long
    command = ["ssh-keygen", "-q", "-t", kind, *small, "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def certify(server: RealSshd, key: Path, *, user: str | None = None, valid: str = "+1d", host: bool = False) -> Path:
    """Write a certificate beside a key, and return the key."""
    options = ["-n", user or login(), "-V", valid, *(["-h"] if host else [])]
    command = ["ssh-keygen", "-q", "-s", str(server.folder / "ca"), "-I", "test", *options, f"{key}.pub"]
    subprocess.run(command, check=True)
    return key


def is_let_in(hook: GpuClusterHook) -> bool:
    with hook.connect() as client:
        transport = client.get_transport()
        return transport is not None and transport.is_authenticated()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_certificate_lets_in(server: RealSshd, home: Path, connection: Connect, tmp_path: Path, kind: str) -> None:
    key = certify(server, new_key(tmp_path / "key", kind))
    for fields in (
        {"key_file": str(key)},
        {"key_file": f"{key}-cert.pub"},
        {"private_key": key.read_text(), "certificate_file": f"{key}-cert.pub"},
    ):
        connection("c", server, host_key=server.host_key, **fields)
        assert is_let_in(GpuClusterHook("c"))
    (home / ".ssh/config").write_text(f"Host *\n  IdentityFile {tmp_path}/none\n  IdentityFile {key}\n")
    connection("c", server, host_key=server.host_key)
    assert is_let_in(GpuClusterHook("c"))
    (home / ".ssh/config").unlink()
    connection("c", server, host_key=server.host_key, private_key=key.read_text())
    with pytest.raises(GpuClusterAuthenticationError, match=r"refused the user .*\(with private_key, which is "):
        GpuClusterHook("c").connect()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"valid": "20200101:20200102"}, "it was valid until 2020-01-0"),
        ({"valid": "20990101:20990102"}, "it is valid only from 20"),
        ({"user": "alice,bob"}, f"it is for alice and bob, and the login is {login()}"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(
    server: RealSshd, home: Path, connection: Connect, tmp_path: Path, options: dict[str, str], told: str
) -> None:
    key = certify(server, new_key(tmp_path / "key"), **options)  # type: ignore[arg-type]
    connection("c", server, host_key=server.host_key, key_file=str(key))
    with pytest.raises(GpuClusterAuthenticationError) as raised:
        GpuClusterHook("c").connect()
    assert f"The certificate {key}-cert.pub: {told}" in str(raised.value)
    assert "private_key" not in str(raised.value)
    # The key itself counts as well, as with ssh.
    authorized = server.folder / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + Path(f"{key}.pub").read_text())
    assert is_let_in(GpuClusterHook("c"))
    authorized.write_text(before)


def test_an_authority_that_the_server_does_not_trust_is_named(
    sshd: RealSshd, server: RealSshd, home: Path, connection: Connect, tmp_path: Path
) -> None:
    key = certify(server, new_key(tmp_path / "key"))
    connection("c", sshd, host_key=sshd.host_key, key_file=str(key))
    authority = paramiko.Ed25519Key.from_private_key_file(str(server.folder / "ca")).fingerprint
    with pytest.raises(GpuClusterAuthenticationError) as raised:
        GpuClusterHook("c").connect()
    assert f"signed by {authority}, which the server must trust (TrustedUserCAKeys)" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "cannot be read on .* No such file"),
        ("key.pub", "is no OpenSSH certificate .it is a public key"),
        ("other-cert.pub", "is the certificate of another key"),
        ("host-cert.pub", "is a certificate of a host, not of a user"),
    ],
)
def test_a_file_that_is_no_certificate_of_the_key_is_told(
    server: RealSshd, home: Path, connection: Connect, tmp_path: Path, name: str, told: str
) -> None:
    key = new_key(tmp_path / "key")
    certify(server, new_key(tmp_path / "other"))
    (tmp_path / "host.pub").write_text((tmp_path / "key.pub").read_text())
    certify(server, tmp_path / "host", host=True)
    connection("c", server, host_key=server.host_key, key_file=str(key), certificate_file=str(tmp_path / name))
    with pytest.raises(GpuClusterAuthenticationError, match=f"field certificate_file: .*{told}"):
        GpuClusterHook("c").connect()


def test_a_certificate_needs_its_key(server: RealSshd, home: Path, connection: Connect) -> None:
    connection("c", server, host_key=server.host_key, certificate_file="/x-cert.pub")
    with pytest.raises(GpuClusterSetupError, match="a certificate_file without private_key or key_file; add its key"):
        GpuClusterHook("c").connect()


def test_a_new_certificate_counts_for_the_next_connection(
    server: RealSshd, home: Path, connection: Connect, tmp_path: Path
) -> None:
    key = certify(server, new_key(tmp_path / "key"), valid="20200101:20200102")
    connection("c", server, host_key=server.host_key, key_file=str(key))
    hook = GpuClusterHook("c")
    with pytest.raises(GpuClusterAuthenticationError):
        hook.connect()
    certify(server, key)
    assert is_let_in(hook)


def test_a_stray_certificate_in_the_home_is_told(server: RealSshd, home: Path, connection: Connect) -> None:
    new_key(home / ".ssh/id_ed25519")
    (home / ".ssh/id_ed25519-cert.pub").write_text("junk")
    connection("c", server, host_key=server.host_key)
    with pytest.raises(
        GpuClusterAuthenticationError, match=r"certificate in ~/\.ssh or in the SSH agent cannot be used"
    ):
        GpuClusterHook("c").connect()
