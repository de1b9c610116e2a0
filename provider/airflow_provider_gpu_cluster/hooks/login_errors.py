"""What went wrong with a login, from an exception of paramiko that often does not say it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import paramiko

from airflow_provider_gpu_cluster.connection.words import cleaned, words_of
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
)

_SECOND_FACTOR = (
    "Airflow can answer no question: ask the administrator to exempt this key from the second factor, put the password "
    "into the connection if that is what is asked for, or let the connection go through a connection that a person has "
    "opened and holds open on the worker (ControlMaster, with a ProxyCommand such as `ssh -W %h:%p ...`)"
)


@dataclass(frozen=True)
class Login:
    """
    A login as the connection describes it.

    :param where: the cluster, for the beginning of messages.
    :param refused: what it offers, and what to check when that is refused.
    :param conn_timeout: seconds for the connection with its key exchange.
    """

    where: str
    host: str
    port: int
    username: str
    refused: str
    conn_timeout: float


class SilentTransport(paramiko.Transport):
    """
    A transport that does not ask for a second factor on standard input.

    On a worker nobody answers there, and Airflow uses it to talk to the process.
    """

    def auth_interactive_dumb(self, *question: Any, **options: Any) -> list[str]:
        """Take the question for a factor that is missing."""
        raise paramiko.ssh_exception.PartialAuthentication(["keyboard-interactive"])


def explained(error: Exception, login: Login) -> GpuClusterError:
    """Return our own error for what a server, or what is in front of it, did with a login."""
    frames = list(_frames(error))
    transport = _transport(frames)
    server = cleaned(transport.remote_version, 100) if transport is not None and transport.remote_version else ""
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return GpuClusterSetupError(
            f"{login.where}: this machine and its SSH server{f' ({server})' if server else ''} have no algorithm in "
            f"common ({words_of(error)}); check the fields ciphers and disabled_algorithms of the connection, and ask "
            "the administrator for an update of the server if it only knows old ones"
        )
    if _second_factor(error, frames):
        return GpuClusterAuthenticationError(
            f"{login.where}: it accepted the first factor of {login.username}, and asks for a second "
            f"({', '.join(sorted(_second_factor(error, frames)))}). {_SECOND_FACTOR}"
        )
    names = {frame.f_code.co_name for frame in frames}
    text = str(error)
    if "banner" in text.lower() or "protocol version" in text:
        return GpuClusterConnectionError(
            f"{login.where}: port {login.port} of {login.host} accepts connections, but no SSH server says its name "
            f"there ({words_of(error)}). If something else listens there, check the fields host and port. If the "
            f"server is slow or very busy, set 'conn_timeout' in the connection (now {login.conn_timeout:g} s) to more"
        )
    if "get_remote_server_key" in names or (not server and "No existing session" in text):
        return GpuClusterConnectionError(
            f"{login.where}: port {login.port} of {login.host} accepts connections, but the SSH server"
            f"{f' ({server})' if server else ''} did not agree on keys within {login.conn_timeout:g} s. If it is slow "
            "or very busy, set 'conn_timeout' in the connection to more seconds; else check host and port, and what "
            "lies between"
        )
    if "Authentication timeout" in text:
        return GpuClusterConnectionError(
            f"{login.where}: it did not decide on the login of {login.username} in time; its directory of "
            "users may be slow or unreachable: try again later, or ask its administrator"
        )
    is_about_keys = isinstance(error, paramiko.AuthenticationException) or "No authentication methods" in text
    if is_about_keys or any(name.startswith("auth_") for name in names):
        return _about_keys(error, login)
    return GpuClusterConnectionError(
        f"{login.where}: the connection broke while it was being set up: {words_of(error)}"
    )


def _about_keys(error: Exception, login: Login) -> GpuClusterError:
    hung_up = any(sign in str(error) for sign in ("No existing session", "EOF", "shut down"))
    agent = _keys_of_agent()
    if hung_up:
        in_agent = f" (the SSH agent of this process holds {agent})" if agent else ""
        return GpuClusterAuthenticationError(
            f"{login.where}: it ended the login of {login.username} before a key or password was "
            f"accepted, as servers do after too many tries (MaxAuthTries){in_agent}. Put the right key into "
            "private_key or key_file, which is tried first, set 'look_for_keys' to false in the connection, and start "
            "Airflow without SSH_AUTH_SOCK"
        )
    return GpuClusterAuthenticationError(f"{login.where}: it refused the user {login.username} {login.refused}")


def _keys_of_agent() -> int:
    if "SSH_AUTH_SOCK" not in os.environ:
        return 0
    try:
        agent = paramiko.Agent()
        try:
            return len(agent.get_keys())
        finally:
            agent.close()
    except (paramiko.SSHException, OSError):
        return 0


def _second_factor(error: Exception, frames: list[FrameType]) -> set[str]:
    """Return the methods that a server asks for after it has accepted another; empty if it has accepted none."""
    if isinstance(error, paramiko.ssh_exception.PartialAuthentication):
        return set(error.allowed_types)
    for frame in frames:
        if frame.f_code.co_name == "_auth" and isinstance(frame.f_locals.get("self"), paramiko.SSHClient):
            return set(frame.f_locals.get("two_factor") or ())
    return set()


def _transport(frames: list[FrameType]) -> paramiko.Transport | None:
    """Return the transport of a failed login, which nothing else gives away."""
    for frame in reversed(frames):
        owner = frame.f_locals.get("self")
        if isinstance(owner, paramiko.SSHClient):
            owner = owner.get_transport()
        if isinstance(owner, paramiko.Transport):
            return owner
    return None


def _frames(error: Exception) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
