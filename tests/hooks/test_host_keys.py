"""Host keys: from the field host_key, or else from known_hosts, whatever else is in there."""

from __future__ import annotations

import base64
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterHostKeyError, GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.host_keys import (
    HostKeyCheck,
    KnownHost,
    keys_in_field,
    keys_in_files,
)
from tests.hooks.conftest import Connect
from tests.servers.sshd import RealSshd

NAME = "[gpu01.example.org]:2222"
KEYS = [paramiko.ECDSAKey.generate() for _ in range(3)]
GOOD, OTHER, THIRD = KEYS
RSA = paramiko.RSAKey.generate(1024)
SECURITY_KEY = base64.b64encode(
    b"\0\0\0\x1ask-ssh-ed25519@openssh.com\0\0\0\x20" + bytes(32) + b"\0\0\0\4ssh:"
).decode()


def line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def check(known: KnownHost, key: paramiko.PKey = GOOD) -> None:
    HostKeyCheck(known, "cluster gpu01", ("gpu01.example.org", 2222)).missing_host_key(paramiko.SSHClient(), NAME, key)


def known_in(folder: Path, text: str) -> KnownHost:
    (folder / "known_hosts").write_text(text)
    return keys_in_files([str(folder / "known_hosts")], [NAME])


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME} {line(GOOD)}",
        f"{NAME}  \t{line(GOOD)} comment, and more",
        f"a.org,{NAME},10.0.0.1 {line(GOOD)}",
        f"{NAME.upper()} {line(GOOD)}",
        f"[*.example.org]:2222 {line(GOOD)}",
        f"[gpu??.*]:* {line(GOOD)}",
        f"*,!other.org {line(GOOD)}",
        f"{paramiko.HostKeys.hash_host(NAME)} {line(GOOD)}",
        f"{NAME} {line(OTHER)}\n{NAME} {line(GOOD)}\n{NAME} {line(THIRD)}",
        f"{NAME} {line(RSA)}\n{NAME} {line(GOOD)}",
        f"{NAME} {line(GOOD)}\n@revoked {NAME} {line(OTHER)}",
    ],
    ids=itertools.count(1),  # keys are new each time
)
def test_a_key_that_known_hosts_has_is_good(tmp_path: Path, text: str) -> None:
    known = known_in(tmp_path, f"# comment\n\n{text}\n")
    check(known)
    assert known.skipped == []


@pytest.mark.parametrize(
    "text",
    ["", f"other.org {line(GOOD)}", f"*,!{NAME} {line(GOOD)}", f"{NAME[:-1]} {line(GOOD)}"],
    ids=itertools.count(1),  # keys are new each time
)
def test_a_key_that_it_does_not_have_is_unknown(tmp_path: Path, text: str) -> None:
    with pytest.raises(GpuClusterHostKeyError, match=r"its host key is not known: it shows ecdsa.* SHA256:.*host_key"):
        check(known_in(tmp_path, text))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("garbage", "it is cut off"),
        ("\0\1\2 \x80 a b", "its key is damaged"),
        (f"{NAME} ssh-ed25519", "it is cut off"),
        (f"{NAME} {line(GOOD)[:60]}", "its key is"),
        (f"other.org {line(OTHER)[:61]}", "its key is damaged"),
        (f"{NAME} ssh-rsa {GOOD.get_base64()}", "its key is damaged"),
        (f"{NAME} 1024 35 1234567", "its key is damaged"),
        (f"{NAME} sk-ssh-ed25519@openssh.com {SECURITY_KEY}", "'sk-ssh-ed25519@openssh.com' are not supported here"),
        (f"@unheard-of {NAME} {line(GOOD)}", "'@unheard-of' is no marker"),
        ("@cert-authority", "it is cut off"),
        (f"|1|abc|def {line(OTHER)}", "its hashed host name is damaged"),
    ],
    ids=itertools.count(1),  # keys are new each time
)
def test_a_bad_line_is_skipped_and_named(tmp_path: Path, bad: str, told: str) -> None:
    known = known_in(tmp_path, f"{bad}\n{NAME} {line(GOOD)}\n")
    check(known)
    assert len(known.skipped) == 1
    assert known.skipped[0].startswith(f"{tmp_path}/known_hosts:1 is skipped: ")
    assert told in known.skipped[0]


def test_lines_about_others_are_not_named(tmp_path: Path) -> None:
    others = [f"@cert-authority *.org.example {line(OTHER)}", f"a.org sk-ssh-ed25519@openssh.com {SECURITY_KEY}"]
    assert known_in(tmp_path, "\n".join([*others, f"@revoked other.org {line(GOOD)}"])).skipped == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    known = keys_in_files([str(tmp_path), str(tmp_path / "missing")], [NAME])
    assert known.skipped == [f"{tmp_path} cannot be read: Is a directory"]


def test_a_changed_key_names_places_and_fingerprints(tmp_path: Path) -> None:
    with pytest.raises(GpuClusterHostKeyError, match="its host key has changed") as raised:
        check(known_in(tmp_path, f"\n{NAME} {line(OTHER)}\n{NAME} {line(THIRD)}\n"))
    for word in (
        f"{OTHER.fingerprint} ({tmp_path}/known_hosts:2)",
        f"{THIRD.fingerprint} ({tmp_path}/known_hosts:3)",
        f"got ecdsa-sha2-nistp256 {GOOD.fingerprint}",
        "the machine was set up anew",
        "somebody sits in between",
    ):
        assert word in str(raised.value)


def test_a_key_of_another_type_is_not_called_changed(tmp_path: Path) -> None:
    with pytest.raises(GpuClusterHostKeyError, match="it shows a host key of another type than those that are known"):
        check(known_in(tmp_path, f"{NAME} {line(RSA)}"))


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpuClusterHostKeyError, match=r"is revoked in .*known_hosts:2"):
        check(known_in(tmp_path, f"{NAME} {line(GOOD)}\n@revoked * {line(GOOD)}\n"))


def test_an_authority_for_a_host_without_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(GpuClusterHostKeyError, match=r"known_hosts:1 trusts an authority .* it shows no certificate"):
        check(known_in(tmp_path, f"@cert-authority * {line(OTHER)}\n"))


@pytest.mark.parametrize(
    "text",
    [
        line(GOOD),
        GOOD.get_base64(),
        f"  {line(GOOD)} root@gpu01\n",
        f"# {NAME} SSH-2.0-OpenSSH\n{NAME} {line(RSA)}\n{NAME} {line(GOOD)}",
        f"{NAME} {line(RSA)} {NAME} {line(GOOD)}",
        f"{line(RSA)}\\n{line(GOOD)}",
        GOOD.fingerprint,
        f"256 {GOOD.fingerprint} root@gpu01 (ECDSA)",
    ],
    ids=itertools.count(1),  # keys are new each time
)
def test_forms_of_the_field(text: str) -> None:
    known = keys_in_field(text, [NAME])
    check(known)
    with pytest.raises(GpuClusterHostKeyError, match=r"expected .*field host_key.*got"):
        check(known, OTHER)


@pytest.mark.parametrize(
    "text",
    ["AAAA", line(GOOD)[:70], "ssh-ed25519", "MD5:aa:bb", f"@cert-authority * {line(GOOD)}"],
    ids=itertools.count(1),  # keys are new each time
)
def test_what_is_no_host_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"damaged|no key|only in known_hosts"):
        keys_in_field(text, [NAME])


def test_types_that_are_known_come_first(tmp_path: Path) -> None:
    types = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    known = known_in(tmp_path, f"{NAME} {line(RSA)}\n")
    assert known.preferred(types) == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256"]
    trusted = known_in(tmp_path, f"@cert-authority * {line(RSA)}\n")
    assert trusted.preferred(types)[:5] == [*(f"{name}-cert-v01@openssh.com" for name in types), "ssh-ed25519"]


def test_bad_lines_stop_no_connection(
    sshd: RealSshd, home: Path, connection: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    known_hosts = home / ".ssh/known_hosts"
    known_hosts.write_text(f"[{sshd.host}]:{sshd.port} ssh-ed25519 AAAA\n")
    connection("c", sshd, private_key=sshd.client_key, host_key=sshd.host_key)
    GpuClusterHook("c").connect().close()
    connection("c", sshd, private_key=sshd.client_key)
    known_hosts.write_text(f"[{sshd.host}]:{sshd.port} ssh-ed25519 AAAA\n* {line(OTHER)}\n* {sshd.host_key}\n")
    hook = GpuClusterHook("c")
    hook.connect().close()
    hook.connect().close()
    assert list(hook._connector.warnings) == [f"{known_hosts}:1 is skipped: its key is damaged"]


def test_a_field_that_cannot_be_used_is_told(sshd: RealSshd, home: Path, connection: Connect) -> None:
    connection("c", sshd, private_key=sshd.client_key, host_key=f"sk-ssh-ed25519@openssh.com {SECURITY_KEY}")
    with pytest.raises(GpuClusterSetupError, match=r"field host_key cannot be used .*not supported here"):
        GpuClusterHook("c").connect()


Certify = Callable[..., None]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealSshd, Certify]]:
    """Return a server that shows a host certificate, and a function that gives it another one."""
    folder = tmp_path_factory.mktemp("certified")
    server = RealSshd(folder, more=f"HostCertificate {folder}/host_key-cert.pub")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "ca")], check=True)

    def certify(names: str, *, valid: str = "+1d", host: tuple[str, ...] = ("-h",)) -> None:
        server.stop()
        command = ["ssh-keygen", "-q", "-s", str(folder / "ca"), "-I", "gpu01", *host, "-n", names, "-V", valid]
        subprocess.run([*command, str(folder / "host_key.pub")], check=True)
        server.start()

    yield server, certify
    server.stop()


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        ("127.0.0.*", {}, ""),
        ("other.org", {}, "it is for other.org"),
        ("127.0.0.1", {"valid": "-2d:-1d"}, "it was valid until 2"),
        ("127.0.0.1", {"host": ()}, "it is no certificate of a host"),
    ],
)
def test_an_authority_is_honoured(
    certified: tuple[RealSshd, Certify], home: Path, connection: Connect, names: str, options: dict[str, str], told: str
) -> None:
    server, certify = certified
    certify(names, **options)
    authority = " ".join((server.folder / "ca.pub").read_text().split()[:2])
    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {authority}\n")
    connection("c", server, private_key=server.client_key)
    if told:
        with pytest.raises(GpuClusterHostKeyError, match=f"its host certificate is not good: {told}"):
            GpuClusterHook("c").connect()
        return
    GpuClusterHook("c").connect().close()
    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {line(OTHER)}\n")
    with pytest.raises(GpuClusterHostKeyError, match=r"it is signed by SHA256:.*, which known_hosts does not trust"):
        GpuClusterHook("c").connect()
    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {authority}\n@revoked * {authority}\n")
    with pytest.raises(GpuClusterHostKeyError, match=r"is revoked in .*known_hosts:2"):
        GpuClusterHook("c").connect()
