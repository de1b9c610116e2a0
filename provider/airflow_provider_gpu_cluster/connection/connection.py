"""One SSH connection to a cluster, opened when it is first needed, and again after it broke."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Callable, Iterator

import paramiko

from airflow_provider_gpu_cluster.connection.channel import (
    BREAKS,
    execute,
    give_up_on_silence,
    network_socket,
    shortest_round_trip_s,
)
from airflow_provider_gpu_cluster.connection.download_channel import open_download
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterSetupError

# The program on the cluster gives a sign of life every five seconds while it works.
IDLE_TIMEOUT_S = 40.0
_NAP_S = 0.2
_MOMENT_S = 0.2


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
            self._client = self._connect()
            transport = self._client.get_transport()
            # An interrupt while it was being opened had nothing to shut down.
            self.stop_if_interrupted()
            if transport is not None:
                give_up_on_silence(transport, IDLE_TIMEOUT_S)
        assert transport is not None
        return transport

    # -- interruptions

    def interrupt(self) -> None:
        """
        Make a call that waits for the cluster fail now, without retries. The next call works as usual.

        Safe in a signal handler: it only shuts the socket down, and takes no lock.
        """
        self.is_interrupted = True
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
        channel = self._open_channel(self._opened(), downloads=downloads)
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
        try:
            channel = self._open_channel(transport, downloads=downloads)
            channel.invoke_subsystem("sftp")
            sftp = paramiko.SFTPClient(channel)
        except (paramiko.SFTPError, *BREAKS) as error:
            if not transport.is_active():
                raise
            raise GpuClusterSetupError(
                f"{self.settings.where}: SFTP does not work there ({error or type(error).__name__}), and {why}; the "
                "command `sftp` shows what is wrong"
            ) from error
        with sftp:
            yield sftp

    def _open_channel(self, transport: paramiko.Transport, *, downloads: bool) -> paramiko.Channel:
        began = time.monotonic()
        if downloads:
            channel = open_download(transport, IDLE_TIMEOUT_S)
        else:
            channel = transport.open_session(timeout=IDLE_TIMEOUT_S)
        self._answered_after_s = min(self._answered_after_s, time.monotonic() - began)
        channel.settimeout(IDLE_TIMEOUT_S)
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
            raise self.broken(f"the connection broke during {what}: {error or type(error).__name__}") from error

    def broken(self, message: str) -> GpuClusterConnectionError:
        """Return the error for a fault of the connection."""
        return GpuClusterConnectionError(f"{self.settings.where}: {message}")
