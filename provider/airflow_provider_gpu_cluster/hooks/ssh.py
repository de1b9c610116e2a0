"""SSH connections to a cluster, directly or through jump hosts; each fault becomes an error of one sentence."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import paramiko
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException
from airflow.utils.platform import getuser

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.hooks.certificates import objections_to_user, signer_of
from airflow_provider_gpu_cluster.hooks.fields import Fields
from airflow_provider_gpu_cluster.hooks.host_keys import (
    KNOWN_HOSTS,
    HostKeyCheck,
    KnownHost,
    keys_in_field,
    keys_in_files,
    names_of,
)
from airflow_provider_gpu_cluster.hooks.login_errors import Login, SilentTransport, explained
from airflow_provider_gpu_cluster.hooks.login_keys import LoginKey, login_key, passphrase_in
from airflow_provider_gpu_cluster.hooks.proxy_command import ProxyProcess
from airflow_provider_gpu_cluster.hooks.settings import DEFAULT_PORT, name_of
from airflow_provider_gpu_cluster.hooks.ssh_config import CONFIG, HostConfig, UnreadableConfig, look_up, parse_jump

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

# By default paramiko writes three lines into the task's log for each connection, and a traceback for each one that
# breaks, even if the next try succeeds. Our own errors say what matters.
for _name in ("paramiko.transport", "paramiko.transport.sftp"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)

CONN_TYPE = "gpu_cluster"
CONNECT_TIMEOUT_S = 10
_BANNER_TIMEOUT_S = 30.0
_KEEPALIVE_S = 30
# paramiko prefers AES-CTR, with which a transfer takes about twice as long as with AES-GCM. The only documented way to
# change that is to disable the ciphers that are not wanted.
CIPHERS: tuple[str, ...] = paramiko.Transport._preferred_ciphers  # type: ignore[attr-defined]
SLOW_CIPHERS = tuple(cipher for cipher in CIPHERS if "-gcm@" not in cipher)
_FORBIDDEN = 1  # the code of RFC 4254 for a channel that the server's administrator does not allow


class _Client(paramiko.SSHClient):
    """An SSH connection that closes what it goes through together with itself."""

    way: paramiko.SSHClient | ProxyProcess | None = None

    def close(self) -> None:
        super().close()
        if self.way is not None:
            self.way.close()
            self.way = None


class SshConnector:
    """
    Opens SSH connections to the host of an Airflow connection.

    :param connection: connection with the fields that ``ssh`` connections have.
    :param where: what messages call the host; by default a cluster.
    :param through: opens connections to the jump host before it; by default what the connection or ~/.ssh/config says.
    :param key: the key to log in with if the connection has none.
    :param on_the_way: hosts and connections that are reached through this one.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        where: str | None = None,
        through: SshConnector | None = None,
        key: LoginKey | None = None,
        on_the_way: tuple[str, ...] = (),
    ) -> None:
        self.connection = connection
        self.conn_id = connection.conn_id
        self.name = name_of(connection)
        self.where = where or f"cluster {self.name} (connection {self.conn_id})"
        self._fields = Fields(connection)
        if connection.conn_type == CONN_TYPE:
            self._fields.refuse_unknown()
        self._through = through
        self._given_key = key
        self._key: LoginKey | None = None
        self._on_the_way = on_the_way
        self._warned: set[str] = set()
        self._takes_fast_ciphers = len(SLOW_CIPHERS) < len(CIPHERS)

    def connect(self) -> paramiko.SSHClient:
        """
        Open a connection. Every call opens another.

        :raises GpuClusterConnectionError: the host cannot be reached, or refuses the login (see the
            subclasses).
        :raises GpuClusterSetupError: a field of the connection, or ~/.ssh/config, cannot be used.
        """
        # Every time, because certificates are replaced while a task runs.
        own_key = login_key(self._fields, self._config, has_password=bool(self.connection.password))
        self._key = own_key or self._given_key
        try:
            if self._takes_fast_ciphers:
                try:
                    return self._connect(SLOW_CIPHERS)
                except paramiko.ssh_exception.IncompatiblePeer:
                    self._takes_fast_ciphers = False
            return self._connect(())
        except BREAKS as error:
            raise self._explained(error) from error
        except (ValueError, AttributeError) as error:
            # From a stray certificate in ~/.ssh, or from one in the agent, which paramiko takes without asking.
            raise GpuClusterAuthenticationError(
                f"{self.where}: a key or certificate in ~/.ssh or in the SSH agent cannot be used ({error}); repair or "
                "remove it, or give the connection a key_file and set look_for_keys to false"
            ) from error

    def _connect(self, without_ciphers: Sequence[str]) -> paramiko.SSHClient:
        known = self._known_host()
        options = self._options(without_ciphers)
        client = _Client()
        if known is None:
            client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
        else:
            client.set_missing_host_key_policy(HostKeyCheck(known, self.where, self._address))

        def transport_of(sock: Any, /, **options: Any) -> paramiko.Transport:
            transport = SilentTransport(sock, **options)
            if known is not None:
                types = transport.get_security_options()
                types.key_types = tuple(known.preferred(types.key_types))
            return transport

        try:
            client.connect(
                self._address[0],
                self._address[1],
                sock=self._way_for(client),
                transport_factory=transport_of,
                **options,
            )
        except paramiko.AuthenticationException:
            if not self._takes_plain_key(client):
                client.close()
                raise
        except BREAKS as error:
            ending = client.way.ending() if isinstance(client.way, ProxyProcess) else None
            command = client.way.command if isinstance(client.way, ProxyProcess) else ""
            client.close()
            if ending is not None:
                raise GpuClusterConnectionError(
                    f"{self.where}: the ProxyCommand `{command}` of {CONFIG} did not connect: {ending}"
                ) from error
            raise
        except BaseException:
            client.close()
            raise
        transport = client.get_transport()
        assert transport is not None
        if not transport.is_authenticated():
            # To paramiko, a further factor that it does not know is none.
            client.close()
            raise paramiko.ssh_exception.PartialAuthentication(["another method"])
        transport.set_keepalive(_KEEPALIVE_S)
        return client

    def _options(self, without_ciphers: Sequence[str]) -> dict[str, Any]:
        disabled = {"ciphers": list(without_ciphers), **self._fields.lists_of_names("disabled_algorithms")}
        if ciphers := self._fields.names("ciphers"):
            disabled["ciphers"] = [cipher for cipher in CIPHERS if cipher not in ciphers]
        look_for_keys = self._fields.flag("look_for_keys")
        return {
            "username": self._user,
            "password": (self.connection.password or "").strip() or None,
            "passphrase": passphrase_in(self._fields),
            "pkey": self._key and self._key.key,
            "timeout": self._timeout_s,
            "banner_timeout": max(_BANNER_TIMEOUT_S, self._timeout_s),
            # For models and logs on a LAN, compression only costs time.
            "compress": bool(self._fields.flag("compress")),
            "look_for_keys": look_for_keys is None or look_for_keys,
            "disabled_algorithms": disabled,
        }

    # -- what the connection and ~/.ssh/config say

    @cached_property
    def _config(self) -> HostConfig:
        host = (self.connection.host or "").strip().strip("[]")
        if host.startswith("-") or re.search(r"\s", host):
            raise self._fields.bad("host", host, "the name or address of a machine")
        try:
            config = look_up(host, self.connection.port, self.connection.login)
        except UnreadableConfig as error:
            raise GpuClusterSetupError(
                f"{self.where}: {error}. Correct that line: what the file says of this host, such as a jump host, "
                "would be missing"
            ) from None
        self._warn(config.warnings)
        return config

    @property
    def _address(self) -> tuple[str, int]:
        return self._config.host, self._config.port or DEFAULT_PORT

    @cached_property
    def _user(self) -> str:
        return self._config.user or getuser()

    @property
    def _timeout_s(self) -> float:
        return self._fields.seconds("conn_timeout") or CONNECT_TIMEOUT_S

    def _known_host(self) -> KnownHost | None:
        """Return what is known of the host's keys, or None if they are not to be checked."""
        trusts_any = self._fields.flag("no_host_key_check")
        if trusts_any is None:
            trusts_any = self._fields.flag("ignore_hostkey_verification")
        names = list({names_of(name, self._address[1]) for name in (self._address[0], self.connection.host or "")})
        if self._config.key_alias:
            names = [self._config.key_alias]
        host_key = self._fields.secret_text("host_key")
        if host_key:
            if trusts_any:
                raise GpuClusterSetupError(
                    f"connection {self.conn_id} has a host_key and says not to check it (no_host_key_check); "
                    "take one of them out"
                )
            try:
                return keys_in_field(host_key, names)
            except ValueError as error:
                raise GpuClusterSetupError(
                    f"connection {self.conn_id}: field host_key cannot be used ({error}); it must be a key type and a "
                    "key, such as 'ssh-ed25519 AAAA...', or a fingerprint, such as 'SHA256:...'"
                ) from None
        if trusts_any or self._fields.flag("allow_host_key_change"):
            self._warn([f"{self.where}: its host key is not checked, so that somebody in between is not noticed"])
            return None
        known_hosts = self._fields.text("known_hosts")
        known = keys_in_files([known_hosts] if known_hosts else self._config.known_hosts or KNOWN_HOSTS, names)
        self._warn(known.skipped)
        return known

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            if warning not in self._warned:
                log.warning("%s", warning)
        self._warned.update(warnings)

    @property
    def warnings(self) -> Iterator[str]:
        """What was found wrong so far, and did not keep from connecting."""
        yield from sorted(self._warned)
        if self._jump is not None:
            yield from self._jump.warnings

    # -- the way to the host

    @cached_property
    def _jump(self) -> SshConnector | None:
        """The jump host, if there is one."""
        if self._through is not None:
            return self._through
        on_the_way = (*self._on_the_way, self.conn_id)
        if jump_conn_id := self._fields.text("jump_conn_id"):
            if jump_conn_id in on_the_way:
                raise GpuClusterSetupError(
                    f"connection {self.conn_id}: field jump_conn_id is {jump_conn_id!r}, which would be its own jump "
                    f"host: {' -> '.join((*on_the_way, jump_conn_id))}"
                )
            try:
                connection = BaseHook.get_connection(jump_conn_id)
            except AirflowException as error:
                raise GpuClusterSetupError(
                    f"connection {self.conn_id}: field jump_conn_id is {jump_conn_id!r}, and that connection cannot be "
                    f"read: {error}"
                ) from None
            if not connection.host:
                raise GpuClusterSetupError(f"connection {jump_conn_id}: a jump host needs the field host")
            where = f"{self.where}: its jump host {name_of(connection)} (connection {jump_conn_id})"
            return SshConnector(connection, where=where, on_the_way=on_the_way)
        through: SshConnector | None = None
        for jump in self._config.jumps:
            through = self._jump_of_config(jump, through)
        return through

    def _jump_of_config(self, jump: str, through: SshConnector | None) -> SshConnector:
        if jump in self._on_the_way:
            raise GpuClusterSetupError(
                f"{self.where}: ProxyJump {jump} of {CONFIG} applies to that jump host itself; set `ProxyJump none` "
                "for it, above"
            )
        try:
            user, host, port = parse_jump(jump)
        except ValueError as error:
            raise GpuClusterSetupError(f"{self.where}: ProxyJump of {CONFIG}: {error}") from None
        return SshConnector(
            Connection(conn_id=self.conn_id, conn_type="ssh", host=host, login=user, port=port),
            where=f"{self.where}: its jump host {jump} (ProxyJump of {CONFIG})",
            through=through,
            key=self._key,
            on_the_way=(*self._on_the_way, jump),
        )

    def _way_for(self, client: _Client) -> Any:
        """Return the socket for a connection that does not go directly, and let the client own what it is part of."""
        if self._jump is not None:
            client.way = jump = self._jump.connect()
            transport = jump.get_transport()
            assert transport is not None
            try:
                return transport.open_channel("direct-tcpip", self._address, ("127.0.0.1", 0), timeout=self._timeout_s)
            except paramiko.ChannelException as error:
                raise self._not_passed_on(error) from error
        if self._config.proxy_command:
            try:
                client.way = ProxyProcess(self._config.proxy_command)
            except OSError as error:
                raise GpuClusterSetupError(
                    f"{self.where}: the ProxyCommand `{' '.join(self._config.proxy_command)}` of {CONFIG} cannot be "
                    f"started: {error.strerror}"
                ) from None
            return client.way.socket
        return None

    def _not_passed_on(self, error: paramiko.ChannelException) -> GpuClusterConnectionError:
        assert self._jump is not None
        host, port = self._address
        if error.code == _FORBIDDEN:
            return GpuClusterAuthenticationError(
                f"{self._jump.where} does not allow connections to {host}:{port}: {error.text}. Ask its administrator "
                "(AllowTcpForwarding and PermitOpen in its sshd_config, or options of the key there)"
            )
        return GpuClusterConnectionError(
            f"{self._jump.where} cannot connect to {host}:{port}: {error.text}; check host and port as they are seen "
            "from there"
        )

    def _takes_plain_key(self, client: paramiko.SSHClient) -> bool:
        """Return whether the key is accepted that was refused with its certificate; ssh as well offers both."""
        transport = client.get_transport()
        if self._key is None or self._key.certificate is None or transport is None or not transport.is_active():
            return False
        try:
            return not transport.auth_publickey(self._user, self._key.plain_key)
        except BREAKS:
            return False

    # -- errors

    def _explained(self, error: Exception) -> GpuClusterError:
        """Return our own error for it, which says what happened, where, and what to do."""
        host, port = self._address
        if isinstance(error, socket.gaierror):
            return GpuClusterConnectionError(
                f"{self.where}: the host name {host} is not known here; check the field host"
            )
        if isinstance(error, (ConnectionRefusedError, paramiko.ssh_exception.NoValidConnectionsError)):
            return GpuClusterConnectionError(
                f"{self.where}: nothing accepts connections on port {port} of {host}; check the fields host and "
                "port, and that the SSH server runs there"
            )
        if isinstance(error, TimeoutError):
            return GpuClusterConnectionError(
                f"{self.where}: no answer within {self._timeout_s:g} s; check host and port, and "
                f"whether a firewall lets this machine ({socket.gethostname()}) through"
            )
        return explained(
            error,
            Login(
                where=self.where,
                host=host,
                port=port,
                username=self._user,
                refused=self._refused(),
                conn_timeout=self._timeout_s,
            ),
        )

    def _refused(self) -> str:
        """Return what was offered, and what to check."""
        offered = ["a password"] if self.connection.password else []
        check = ["login", *(["password"] if offered else [])]
        if self._key is not None:
            key = f"{self._key.name}, which is {self._key.key.get_name()} {self._key.key.fingerprint}"
            offered.insert(0, key if self._key.certificate is None else f"{key}, and its certificate")
            check.append(self._key.name)
        checks = f"check {', '.join(check[:-1])} and {check[-1]}" if check[1:] else "check login"
        with_what = f"(with {' and '.join(offered)})" if offered else "(with no key or password in the connection)"
        advice = f"{with_what}; {checks}, and that the public key is in ~/.ssh/authorized_keys there"
        if self._key is None or self._key.certificate is None:
            return advice
        certificate = self._key.certificate
        why = list(objections_to_user(certificate, self._user))
        about = f"The certificate {self._key.certificate_file}: "
        if why:
            return f"{advice}. {about}{' and '.join(why)}; get a new one"
        return (
            f"{advice}. {about}it is valid, and signed by {signer_of(certificate)}, which the server must trust "
            "(TrustedUserCAKeys)"
        )
