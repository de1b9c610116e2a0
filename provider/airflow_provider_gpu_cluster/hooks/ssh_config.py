"""What ~/.ssh/config says of a host, as OpenSSH itself reads it."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

import paramiko

from airflow_provider_gpu_cluster.connection.words import words_of

CONFIG = "~/.ssh/config"
_READ_WITHIN_S = 30
# They are tried anyway, where look_for_keys allows it.
_DEFAULT_IDENTITY = re.compile(r"(~|.*)/\.ssh/id_(rsa|ecdsa|ecdsa_sk|ed25519|ed25519_sk|xmss|dsa)")
_NOTHING = ("none", "")


class UnreadableConfig(Exception):
    """Why ~/.ssh/config cannot be used."""


@dataclass(frozen=True)
class HostConfig:
    """
    How to reach a host.

    :param host: its name or address.
    :param port: port of its SSH server; None for the usual one.
    :param user: user there; None for the user that runs Airflow.
    :param jumps: hosts on the way to it, the first one first, as ProxyJump writes them.
    :param proxy_command: the words of a command that connects to it.
    :param identity_files: private keys for it.
    :param certificate_files: certificates of these keys.
    :param known_hosts: files of host keys; None for the usual ones.
    :param key_alias: its name in them, if that is another.
    :param warnings: what was read and could not be applied.
    """

    host: str
    port: int | None = None
    user: str | None = None
    jumps: Sequence[str] = ()
    proxy_command: Sequence[str] = ()
    identity_files: Sequence[str] = ()
    certificate_files: Sequence[str] = ()
    known_hosts: Sequence[str] | None = None
    key_alias: str | None = None
    warnings: Sequence[str] = field(default=())


def look_up(host: str, port: int | None, user: str | None) -> HostConfig:
    """
    Return what the file says of a host; without the file, just the host.

    :param port: port that the connection gives; it counts more than the file's, and so does the user.
    :raises UnreadableConfig: it cannot be read.
    """
    path = os.path.expanduser(CONFIG)
    if not os.path.exists(path):
        return HostConfig(host, port, user)
    said, why_not = _read_by_ssh(path, host, port, user)
    warnings = []
    if why_not:
        said = _read_by_paramiko(path, host, why_not)
        if "include" in said or shutil.which("ssh"):
            warnings.append(
                f"ssh does not read {path} ({why_not}); what applies of it here has no Include lines and may lack more"
            )
    return _host_config(said, host, port, user, warnings)


def _read_by_ssh(path: str, host: str, port: int | None, user: str | None) -> tuple[dict[str, list[str]], str]:
    """Return the settings of a host, or why ssh does not tell them."""
    command = ["ssh", "-G", "-F", path]
    command += [] if port is None else ["-p", str(port)]
    command += [] if user is None else ["-l", user]
    try:
        ended = subprocess.run(
            [*command, "--", host], stdin=subprocess.DEVNULL, capture_output=True, timeout=_READ_WITHIN_S, check=False
        )
    except FileNotFoundError:
        return {}, "there is no program ssh on this machine"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {}, f"`ssh -G` does not tell: {error}"
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.startswith("Pseudo-terminal")]
        return {}, "; ".join(said)[:500] or f"`ssh -G` ends with exit code {ended.returncode}"
    settings: dict[str, list[str]] = {}
    for line in ended.stdout.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name.lower(), []).append(value)
    return settings, ""


def _read_by_paramiko(path: str, host: str, why_not: str) -> dict[str, list[str]]:
    try:
        found = paramiko.SSHConfig.from_path(path).lookup(host)
    except (OSError, ValueError, ImportError, KeyError, paramiko.SSHException) as error:
        raise UnreadableConfig(f"{path} cannot be read: {why_not}; {words_of(error)}") from None
    return {name: value if isinstance(value, list) else [value or "none"] for name, value in found.items()}


def _host_config(
    said: dict[str, list[str]], host: str, port: int | None, user: str | None, warnings: Sequence[str]
) -> HostConfig:
    def first(name: str) -> str | None:
        value = said.get(name, [""])[0]
        return None if value.lower() in _NOTHING else value

    host_name = first("hostname") or host
    try:
        port = port or int(first("port") or 0) or None
    except ValueError:
        raise UnreadableConfig(f"{CONFIG}: Port {first('port')} of {host} is no number") from None
    user = user or first("user")
    tokens = {
        "%%": "%",
        "%h": host_name,
        "%n": host,
        "%p": str(port or paramiko.config.SSH_PORT),
        "%r": user or "",
        "%u": _in_user_database("pw_name"),
        "%d": os.path.expanduser("~"),
    }

    def expanded(text: str) -> str:
        return re.sub("%[%hnprud]", lambda token: tokens[token[0]], text)

    def files(name: str) -> list[str]:
        return [expanded(path) for path in said.get(name, []) if path.lower() not in _NOTHING]

    try:
        command = [expanded(word) for word in shlex.split(first("proxycommand") or "")]
    except ValueError as error:
        raise UnreadableConfig(f"{CONFIG}: ProxyCommand of {host} cannot be read: {error}") from None
    return HostConfig(
        host=host_name,
        port=port,
        user=user,
        jumps=[expanded(jump.strip()) for jump in (first("proxyjump") or "").split(",") if jump.strip()],
        proxy_command=command,
        identity_files=[path for path in files("identityfile") if not _DEFAULT_IDENTITY.fullmatch(path)],
        certificate_files=files("certificatefile"),
        known_hosts=_known_hosts(said),
        key_alias=first("hostkeyalias"),
        warnings=warnings,
    )


def _known_hosts(said: dict[str, list[str]]) -> list[str] | None:
    names = ("userknownhostsfile", "globalknownhostsfile")
    if not any(name in said for name in names):
        return None
    # OpenSSH takes the home directory from the user database, and everything else here takes it from HOME.
    home = _in_user_database("pw_dir")
    paths = [path for name in names for value in said.get(name, []) for path in value.split()]
    return [f"~{path[len(home) :]}" if home and path.startswith(f"{home}/.ssh/") else path for path in paths]


def _in_user_database(field: str) -> str:
    try:
        return str(getattr(pwd.getpwuid(os.getuid()), field))
    except KeyError:
        return ""


def parse_jump(jump: str) -> tuple[str | None, str, int | None]:
    """
    Return user, host and port of a jump host, written ``[user@]host[:port]`` or as a URI.

    :raises ValueError: it is written in another way.
    """
    found = re.fullmatch(r"(?:ssh://)?(?:(.+)@)?(\[[^\]]+\]|[^:\[\]/]+)(?::(\d+))?/?", jump)
    if found is None:
        raise ValueError(f"{jump!r} is no [user@]host[:port]")
    user, host, port = found.groups()
    return user, host.strip("[]"), None if port is None else int(port)
