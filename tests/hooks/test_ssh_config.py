"""What ~/.ssh/config says of a host, read by OpenSSH itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.hooks.ssh_config import UnreadableConfig, look_up, parse_jump


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that writes the file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()

    def write(text: str) -> None:
        (tmp_path / ".ssh/config").write_text(text)

    return write


def test_without_the_file_nothing_is_known(config: Callable[[str], None]) -> None:
    assert look_up("gpu01", None, None).host == "gpu01"


def test_what_applies_to_a_host(config: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "included").write_text("Host gpu*\n  User ml\n")
    config(f"""
Include {tmp_path}/included
Host gpu01
    HostName %h.example.org
    Port 2222
    ProxyJump alice@first:2022,[::1]:23
    IdentityFile ~/.ssh/of_%h
    IdentityFile "/with a space/%r"
    CertificateFile ~/.ssh/of_%h-cert.pub
    UserKnownHostsFile ~/.ssh/of_gpus
    HostKeyAlias fleet
Match final host *.example.org exec "test %p = 2222"
    IdentityFile /of/match
""")
    found = look_up("gpu01", None, None)
    assert (found.host, found.port, found.user) == ("gpu01.example.org", 2222, "ml")
    assert found.jumps == ["alice@first:2022", "[::1]:23"]
    assert found.identity_files == ["~/.ssh/of_gpu01.example.org", "/with a space/ml", "/of/match"]
    assert found.certificate_files == ["~/.ssh/of_gpu01.example.org-cert.pub"]
    assert found.known_hosts is not None
    assert found.known_hosts[0] == "~/.ssh/of_gpus"
    assert found.key_alias == "fleet"
    # What the connection says counts more.
    assert look_up("gpu01", 22, "bob").identity_files == ["~/.ssh/of_gpu01.example.org", "/with a space/bob"]


def test_a_proxy_command_gets_host_and_port_of_the_connection(config: Callable[[str], None]) -> None:
    config("Host *\n  ProxyCommand nc -x 'a b' %h %p %% %n\n")
    assert look_up("gpu", 77, None).proxy_command == ["nc", "-x", "a b", "gpu", "77", "%", "gpu"]
    config("Host *\n  ProxyCommand none\n  ProxyJump none\n")
    found = look_up("gpu", None, None)
    assert (found.proxy_command, found.jumps) == ([], [])


@pytest.mark.parametrize("text", ["HostName\n", 'Host "gpu\n', "\udcff\n"])
def test_a_file_that_nobody_can_read_is_told_with_its_line(
    config: Callable[[str], None], tmp_path: Path, text: str
) -> None:
    (tmp_path / ".ssh/config").write_bytes(b"Host x\n" + text.encode(errors="surrogateescape"))
    with pytest.raises(UnreadableConfig, match=rf"{tmp_path}/\.ssh/config cannot be read: .* line 2"):
        look_up("gpu", None, None)


def test_what_ssh_refuses_is_told_and_the_rest_applies(config: Callable[[str], None]) -> None:
    config("NoSuchOption yes\nHost gpu\n  HostName 10.0.0.1\n")
    found = look_up("gpu", None, None)
    assert found.host == "10.0.0.1"
    assert "line 1: Bad configuration option: nosuchoption" in found.warnings[0]


def test_without_ssh_paramiko_reads_it(
    config: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config("Host gpu\n  HostName 10.0.0.1\n  ProxyJump b\n  IdentityFile ~/k\n")
    found = look_up("gpu", None, None)
    assert (found.host, found.jumps, found.warnings) == ("10.0.0.1", ["b"], [])
    config("Include other\nHost gpu\n  HostName 10.0.0.1\n")
    assert "has no Include lines" in look_up("gpu", None, None).warnings[0]
    config("Host\n")
    with pytest.raises(UnreadableConfig, match="there is no program ssh on this machine; Unparsable line Host"):
        look_up("gpu", None, None)


@pytest.mark.parametrize(
    ("jump", "parts"),
    [
        ("gw", (None, "gw", None)),
        ("bob@gw:2222", ("bob", "gw", 2222)),
        ("bob@corp@gw", ("bob@corp", "gw", None)),
        ("[2001:db8::1]:22", (None, "2001:db8::1", 22)),
        ("ssh://bob@gw:2222/", ("bob", "gw", 2222)),
    ],
)
def test_forms_of_a_jump_host(jump: str, parts: tuple[str | None, str, int | None]) -> None:
    assert parse_jump(jump) == parts


@pytest.mark.parametrize("jump", ["", "gw:ssh", "a:b:c"])
def test_what_is_no_jump_host(jump: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_jump(jump)
