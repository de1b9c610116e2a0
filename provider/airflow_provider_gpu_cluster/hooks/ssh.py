"""SSH connections to a cluster, opened by SSHHook; each fault becomes an error of one sentence."""

from __future__ import annotations

import binascii
import copy
import logging
import os
import socket
from collections.abc import Sequence
from functools import cached_property
from io import StringIO
from typing import TYPE_CHECKING

import paramiko
from airflow.providers.ssh.hooks.ssh import SSHHook
from airflow.sdk.exceptions import AirflowException

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterHostKeyError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.hooks.login_errors import Login, ask_nobody, explained
from airflow_provider_gpu_cluster.hooks.settings import DEFAULT_PORT, name_of

if TYPE_CHECKING:
    from airflow.sdk import Connection

# By default paramiko writes three lines into the task's log for each connection, and a traceback for each one that
# breaks, even if the next try succeeds. Our own errors say what matters.
for _name in ("paramiko.transport", "paramiko.transport.sftp"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S = 10
# paramiko prefers AES-CTR, with which a transfer takes about twice as long as with AES-GCM. The only documented way to
# change that is to disable the ciphers that are not wanted.
CIPHERS: tuple[str, ...] = paramiko.Transport._preferred_ciphers  # type: ignore[attr-defined]
SLOW_CIPHERS = tuple(cipher for cipher in CIPHERS if "-gcm@" not in cipher)
KEY_CLASSES = (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key)


class SshConnector:
    """
    Opens SSH connections to the host of an Airflow connection.

    :param connection: connection with the fields that ``ssh`` connections have.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.conn_id = connection.conn_id
        self.name = name_of(connection)
        self._takes_fast_ciphers = len(SLOW_CIPHERS) < len(CIPHERS)

    def connect(self) -> paramiko.SSHClient:
        """
        Open a connection. Every call opens another.

        :raises GpuClusterConnectionError: the host cannot be reached, or refuses the login (see the
            subclasses).
        """
        try:
            if self._takes_fast_ciphers:
                try:
                    return self._connect(SLOW_CIPHERS)
                except paramiko.ssh_exception.IncompatiblePeer:
                    self._takes_fast_ciphers = False
            return self._connect(())
        except BREAKS as error:
            raise self._explained(error) from error

    def _connect(self, without_ciphers: Sequence[str]) -> paramiko.SSHClient:
        # A copy of the prepared hook, because SSHHook always returns the first connection that it opened.
        hook = copy.copy(self._hook)
        disabled = {"ciphers": list(without_ciphers), **(hook.disabled_algorithms or {})}
        if hook.ciphers:
            # SSHHook sets these only after the connection is made, which has no effect.
            disabled["ciphers"] = [cipher for cipher in CIPHERS if cipher not in hook.ciphers]
        hook.disabled_algorithms = disabled
        ask_nobody()
        client: paramiko.SSHClient = hook.get_conn()
        transport = client.get_transport()
        if transport is not None and not transport.is_authenticated():
            # To paramiko a further factor that it does not know is none.
            client.close()
            raise paramiko.ssh_exception.PartialAuthentication(["another method"])
        return client

    @cached_property
    def _hook(self) -> SSHHook:
        extra = self.connection.extra_dejson
        if extra.get("host_key") and str(extra.get("no_host_key_check")).lower() == "true":
            raise GpuClusterSetupError(
                f"connection {self.conn_id} has a host_key and says not to check it (no_host_key_check); "
                "take one of them out"
            )
        key = self._read_key(extra.get("private_key"), extra.get("key_file"), extra.get("private_key_passphrase"))
        try:
            # One attempt: our own back-off decides which faults are worth another one.
            hook = SSHHook(ssh_conn_id=self.conn_id, conn_retry_attempts=1)
        except (AirflowException, ValueError, binascii.Error, paramiko.SSHException) as error:
            if extra.get("host_key") and "private" not in str(error).lower():
                valid = "a key type and a key, such as 'ssh-ed25519 AAAA...'"
                raise GpuClusterSetupError(
                    f"connection {self.conn_id}: field host_key cannot be used ({error}); it must be {valid}"
                ) from error
            raise GpuClusterSetupError(f"connection {self.conn_id}: {error}") from error
        if key is not None:
            # SSHHook would neither expand a tilde in key_file nor use the passphrase for that file.
            hook.pkey, hook.key_file = key, None
        # Before version 7 the ssh provider does not check host keys unless it is told to.
        hook.no_host_key_check = str(extra.get("no_host_key_check")).lower() == "true"
        hook.conn_timeout = hook.conn_timeout or CONNECT_TIMEOUT_S
        # SSHHook compresses by default; for models and logs on a LAN that only costs time.
        hook.compress = str(extra.get("compress")).lower() == "true"
        return hook

    def _read_key(self, private_key: str | None, key_file: str | None, passphrase: str | None) -> paramiko.PKey | None:
        """Return the connection's key; raise what is wrong with it, since the server would only refuse it."""
        if private_key and key_file:
            raise GpuClusterSetupError(f"connection {self.conn_id} has both private_key and key_file; keep one of them")
        if key_file:
            try:
                with open(os.path.expanduser(key_file)) as file:
                    private_key = file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise GpuClusterAuthenticationError(
                    f"connection {self.conn_id}: the private key {key_file} cannot be read on "
                    f"{socket.gethostname()}: {getattr(error, 'strerror', None) or error}; "
                    "put it there for the user that runs Airflow, or put its text into the field private_key"
                ) from None
        if not private_key:
            return None
        return self._parse_key(private_key, passphrase, "key_file" if key_file else "private_key")

    def _parse_key(self, private_key: str, passphrase: str | None, field: str) -> paramiko.PKey:
        encrypted = False
        for key_class in KEY_CLASSES:
            try:
                return key_class.from_private_key(StringIO(private_key), password=passphrase or None)
            except paramiko.PasswordRequiredException:
                encrypted = True
            except (paramiko.SSHException, ValueError, IndexError, TypeError):
                continue
        where = f"connection {self.conn_id}: the private key in field {field}"
        if encrypted:
            raise GpuClusterAuthenticationError(
                f"{where} is encrypted; put its passphrase into the field private_key_passphrase"
            )
        raise GpuClusterAuthenticationError(
            f"{where} cannot be read; it must be a whole RSA, ECDSA or Ed25519 private key with its BEGIN "
            "and END lines, and private_key_passphrase its passphrase if it has one"
        )

    def _explained(self, error: Exception) -> GpuClusterError:
        """Return our own error for it, which says what happened, where, and what to do."""
        where, host = f"cluster {self.name} (connection {self.conn_id})", self.connection.host
        port = self.connection.port or DEFAULT_PORT
        if isinstance(error, socket.gaierror):
            return GpuClusterConnectionError(f"{where}: the host name {host} is not known here; check the field host")
        if isinstance(error, paramiko.BadHostKeyException):
            return GpuClusterHostKeyError(
                f"{where}: its host key has changed: expected {error.expected_key.get_name()} "
                f"{error.expected_key.fingerprint}, got {error.key.get_name()} {error.key.fingerprint}. "
                "Either the machine was set up anew or somebody sits in between: ask its administrator before "
                "you put the new key into the field host_key (or the workers' known_hosts)"
            )
        if isinstance(error, paramiko.SSHException) and "known_hosts" in str(error):
            return GpuClusterHostKeyError(
                f"{where}: its host key is not known. Run `ssh-keyscan -p {port} {host}`, compare what it "
                "prints with what the administrator says, and put the last two words of a line (such as "
                "'ssh-ed25519 AAAA...') into the field host_key of the connection"
            )
        if isinstance(error, (ConnectionRefusedError, paramiko.ssh_exception.NoValidConnectionsError)):
            return GpuClusterConnectionError(
                f"{where}: nothing accepts connections on port {port} of {host}; check the fields host and "
                "port, and that the SSH server runs there"
            )
        if isinstance(error, TimeoutError) and not self._hook.host_proxy_cmd:
            return GpuClusterConnectionError(
                f"{where}: no answer within {self._hook.conn_timeout} s; check host and port, and "
                f"whether a firewall lets this machine ({socket.gethostname()}) through"
            )
        hook = self._hook
        return explained(
            error,
            Login(
                where=where,
                host=str(host),
                port=port,
                username=hook.username or "",
                offered=self._offered(),
                conn_timeout=hook.conn_timeout or CONNECT_TIMEOUT_S,
                banner_timeout=hook.banner_timeout,
                auth_timeout=hook.auth_timeout,
            ),
        )

    def _offered(self) -> str:
        extra = self.connection.extra_dejson
        offered = [
            word
            for word, given in (
                ("private_key", extra.get("private_key")),
                ("key_file", extra.get("key_file")),
                ("a password", self._hook.password),
            )
            if given
        ]
        return f"with {' and '.join(offered)}" if offered else "with no key or password in the connection"
