"""One SSH connection to a cluster, opened when it is first needed, and again after it broke."""

from __future__ import annotations

import contextlib
import math
import socket
import time
import weakref
from collections.abc import Callable, Iterator

import paramiko

from airflow_provider_gpu_cluster.connection.channel import (
    BREAKS,
    execute,
    give_up_on_silence,
    network_socket,
    said_on_stderr,
    shortest_round_trip_s,
    text_of,
)
from airflow_provider_gpu_cluster.connection.command_line import root_line
from airflow_provider_gpu_cluster.connection.download_channel import open_download
from airflow_provider_gpu_cluster.connection.root_dir import is_expanded_there
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.connection.sftp import sftp_path
from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.stats import metrics
from airflow_provider_gpu_cluster.stats.sending import count

# The program on the cluster gives a sign of life every five seconds while it works.
IDLE_TIMEOUT_S = 40.0
_NAP_S = 0.2
_MOMENT_S = 0.2
# A server that allows few sessions (MaxSessions) counts one a moment longer than we do.
_SESSION_ENDS_WITHIN_S = 5.0
_SESSION_PAUSE_S = 0.05
_ROOT_BYTES = 1 << 16


class Connection:
    """
    An SSH connection. Use it from one thread at a time; only :meth:`interrupt` works from any.

    :param settings: the cluster.
    :param connect: opens an SSH connection, or raises an error of :mod:`.exceptions`.
    """

    def __init__(self, settings: ClusterSettings, connect: Callable[[], paramiko.SSHClient]) -> None:
        self.settings = settings
        self._connect = connect
        self._client: paramiko.SSHClient | None = None
        self._answered_after_s = math.inf
        self._sessions: weakref.WeakSet[paramiko.Channel] = weakref.WeakSet()
        self._second: Connection | None = None
        """For further sessions at the same time, where the server allows one per connection."""
        self._root: str | None = None
        self._was_open = False
        self.is_interrupted = False
        """Whether :meth:`interrupt` was called; the next call resets it."""

    def beside(self) -> Connection:
        """Return another connection to the same cluster, which is not open yet."""
        return Connection(self.settings, self._connect)

    # -- opening and closing

    def open(self) -> None:
        """
        Connect now, unless already connected.

        :raises GpuClusterConnectionError: the cluster cannot be reached; there is no second try.
        """
        with self.breaks_explained("the login"):
            self._opened()

    def close(self) -> None:
        """Close the connection; the next call that needs one opens another."""
        if self._second is not None:
            self._second.close()
        if self._client is not None:
            self._client.close()
            self._client = None

    def is_connected(self) -> bool:
        """Return whether the connection is alive, as far as this side knows."""
        transport = self._transport
        if transport is None:
            return False
        # When it breaks, its channels are notified a moment before it becomes inactive itself.
        transport.join(_MOMENT_S)
        return transport.is_active()

    @property
    def _transport(self) -> paramiko.Transport | None:
        return None if self._client is None else self._client.get_transport()

    def _opened(self) -> paramiko.Transport:
        """Return the connection; open it first if necessary."""
        transport = self._transport
        if transport is None or not transport.is_active():
            self.close()
            self._client = self._connected()
            transport = self._client.get_transport()
            # An interrupt while it was being opened had nothing to shut down.
            self.stop_if_interrupted()
            if transport is not None:
                give_up_on_silence(transport, IDLE_TIMEOUT_S)
        assert transport is not None
        return transport

    def _connected(self) -> paramiko.SSHClient:
        tags = {"conn_id": self.settings.conn_id}
        try:
            client = self._connect()
        except GpuClusterError:
            count(metrics.CONNECTION_FAILURES, tags)
            raise
        count(metrics.CONNECTIONS_OPENED, tags)
        if self._was_open:
            count(metrics.RECONNECTS, tags)
        self._was_open = True
        return client

    # -- interruptions

    def interrupt(self) -> None:
        """
        Make a call that waits for the cluster fail now, without retries. The next call works as usual.

        Safe in a signal handler: it only shuts the socket down, and takes no lock.
        """
        self.is_interrupted = True
        second = self._second
        if second is not None:
            second.interrupt()
        transport = self._transport
        if transport is not None:
            with contextlib.suppress(OSError, AttributeError):
                network_socket(transport).shutdown(socket.SHUT_RDWR)

    def stop_if_interrupted(self) -> None:
        """
        Raise if the current call was interrupted.

        :raises GpuClusterConnectionError: it was interrupted.
        """
        if self.is_interrupted:
            raise self.broken("the call was interrupted")

    def sleep(self, seconds: float) -> None:
        """
        Sleep in short pieces, because a signal handler that returns does not end a sleep.

        :raises GpuClusterConnectionError: the call was interrupted meanwhile.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.stop_if_interrupted()
            time.sleep(min(left, _NAP_S))

    # -- channels

    def start(self, command: str, *, downloads: bool = False) -> paramiko.Channel:
        """
        Start a command on the cluster, and return its channel; errors appear when the channel is read.

        :param downloads: whether the command will send much data.
        """
        channel = self._session(self._opened(), downloads=downloads)
        execute(channel, command)
        return channel

    def exit_status(self, channel: paramiko.Channel) -> int:
        """Return the exit status of a command that has ended; -1 if it has none or none arrives."""
        channel.status_event.wait(IDLE_TIMEOUT_S)
        return channel.exit_status

    @contextlib.contextmanager
    def sftp(
        self, *, why: str = "the connection's field transfer is sftp", downloads: bool = True
    ) -> Iterator[paramiko.SFTPClient]:
        """
        Open SFTP over the existing connection.

        :param why: why SFTP is needed, for the error message.
        :param downloads: whether much data will arrive.
        :raises GpuClusterSetupError: the cluster has no SFTP.
        """
        transport = self._transport
        if transport is None:
            raise self.broken("the connection broke")
        channel = self._session(transport, downloads=downloads)
        transport = channel.get_transport()
        try:
            channel.invoke_subsystem("sftp")
            sftp = paramiko.SFTPClient(channel)
        except (paramiko.SFTPError, *BREAKS) as error:
            if not transport.is_active():
                raise
            raise GpuClusterSetupError(
                f"{self.settings.where}: SFTP does not work there ({words_of(error)}), and {why}; the "
                "command `sftp` shows what is wrong"
            ) from error
        with sftp:
            yield sftp

    def _session(self, transport: paramiko.Transport, *, downloads: bool) -> paramiko.Channel:
        """Open a session; where the server allows no further one, wait for the last one's end, or connect again."""
        has_others = any(not channel.closed for channel in self._sessions)
        if has_others and self._second is not None:
            return self._beside(downloads=downloads)
        until = time.monotonic() + _SESSION_ENDS_WITHIN_S
        while True:
            try:
                return self._open_channel(transport, downloads=downloads)
            except paramiko.ChannelException:
                if time.monotonic() > until:
                    raise
                if has_others:
                    return self._beside(downloads=downloads)
            self.sleep(_SESSION_PAUSE_S)

    def _beside(self, *, downloads: bool) -> paramiko.Channel:
        """Open a session over the second connection."""
        if self._second is None:
            self._second = self.beside()
        self._second.is_interrupted = self.is_interrupted
        return self._second._session(self._second._opened(), downloads=downloads)

    def _open_channel(self, transport: paramiko.Transport, *, downloads: bool) -> paramiko.Channel:
        began = time.monotonic()
        if downloads:
            channel = open_download(transport, IDLE_TIMEOUT_S)
        else:
            channel = transport.open_session(timeout=IDLE_TIMEOUT_S)
        self._answered_after_s = min(self._answered_after_s, time.monotonic() - began)
        channel.settimeout(IDLE_TIMEOUT_S)
        self._sessions.add(channel)
        return channel

    @property
    def round_trip_s(self) -> float:
        """
        The round-trip time, in seconds.

        The kernel's measurement is best, because it does not depend on any process. If the connection goes through
        another program, this is the shortest time in which the other side has answered.
        """
        transport = self._transport
        seen = None if transport is None else shortest_round_trip_s(transport)
        return self._answered_after_s if seen is None else seen

    # -- the root

    def sftp_path(self, path: str) -> str:
        """
        Return the SFTP path of something below the root.

        :raises GpuClusterSetupError: the cluster does not know the root's variables.
        """
        root_dir = self.settings.root_dir
        if is_expanded_there(root_dir) and self._root is None:
            self._root = self._expanded_root()
        return sftp_path(self._root or root_dir, path)

    def _expanded_root(self) -> str:
        with contextlib.closing(self.start(root_line(self.settings))) as channel:
            said = channel.makefile("rb").read(_ROOT_BYTES)
            status = self.exit_status(channel)
            if status == protocol.EXIT_NO_ROOT:
                raise self.no_root(text_of(said_on_stderr(channel)))
        # What a login shell prints comes before it.
        root = said.decode("utf-8", "surrogateescape").rpartition("\n")[2]
        if status != 0 or not root.startswith("/"):
            raise self.broken(f"the connection broke while root_dir {self.settings.root_dir} was looked up")
        return root

    def no_root(self, said: str) -> GpuClusterSetupError:
        """Return the error for a root that the cluster cannot tell, from what its shell has said."""
        lines = said.splitlines()
        return GpuClusterSetupError(
            f"{self.settings.where}: root_dir {self.settings.root_dir} means no folder there: "
            f"{lines[-1] if lines else 'its shell gave no reason'}; set the variable in a start file that is read by a "
            "login that runs one command, or set 'root_dir' in the connection to the path itself"
        )

    # -- errors

    @contextlib.contextmanager
    def breaks_explained(self, what: str) -> Iterator[None]:
        """
        Turn the exceptions of a broken connection into an error that says so.

        :param what: the operation, for the message.
        """
        try:
            yield
        except BREAKS as error:
            raise self.broken(f"the connection broke during {what}: {words_of(error)}") from error

    def broken(self, message: str) -> GpuClusterConnectionError:
        """Return the error for a fault of the connection."""
        return GpuClusterConnectionError(f"{self.settings.where}: {message}")
