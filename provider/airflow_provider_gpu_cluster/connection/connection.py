"""One SSH connection to a cluster: opened when it is first needed, and again after it broke."""

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
        """Whether :meth:`interrupt` was called; whoever begins a new call sets it back."""

    def beside(self) -> Connection:
        """Return another connection to the same cluster, which is not open yet."""
        return Connection(self.settings, self._connect)

    # -- opening and closing

    def open(self) -> None:
        """
        Connect now, unless it is connected.

        :raises GpuClusterConnectionError: the cluster cannot be reached; there is no second try.
        """
        with self.breaks_explained("the login"):
            self._opened()

    def close(self) -> None:
        """Close the connection; whoever needs it next opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def is_connected(self) -> bool:
        """Return whether the connection lives, as far as is known without asking the other side."""
        transport = self._transport
        if transport is None:
            return False
        # When it breaks, its channels are told a moment before it is inactive itself.
        transport.join(_MOMENT_S)
        return transport.is_active()

    @property
    def _transport(self) -> paramiko.Transport | None:
        return None if self._client is None else self._client.get_transport()

    def _opened(self) -> paramiko.Transport:
        """Return the connection, opened if there is none."""
        transport = self._transport
        if transport is None or not transport.is_active():
            self.close()
            self._client = self._connect()
            transport = self._client.get_transport()
            # An interruption while it was being opened found nothing to shut down.
            self.stop_if_interrupted()
            if transport is not None:
                give_up_on_silence(transport, IDLE_TIMEOUT_S)
        assert transport is not None
        return transport

    # -- interruptions

    def interrupt(self) -> None:
        """
        Make a call that waits for the cluster fail now, without another try. The next call works as usual.

        Safe in a signal handler: it only shuts the socket down, and takes no lock.
        """
        self.is_interrupted = True
        transport = self._transport
        if transport is not None:
            with contextlib.suppress(OSError, AttributeError):
                transport.sock.shutdown(socket.SHUT_RDWR)

    def stop_if_interrupted(self) -> None:
        """
        Do nothing, unless the call that goes on was interrupted.

        :raises GpuClusterConnectionError: it was.
        """
        if self.is_interrupted:
            raise self.broken("the call was interrupted")

    def sleep(self, seconds: float) -> None:
        """
        Sleep in short pieces: a signal handler that returns does not end a sleep.

        :raises GpuClusterConnectionError: the call was interrupted meanwhile.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.stop_if_interrupted()
            time.sleep(min(left, _NAP_S))

    # -- channels

    def start(self, command: str, *, downloads: bool = False) -> paramiko.Channel:
        """
        Start a command on the cluster, and return its channel; what goes wrong is told to whoever reads from it.

        :param downloads: whether much is to come from it.
        """
        channel = self._open_channel(self._opened(), downloads=downloads)
        execute(channel, command)
        return channel

    def exit_status(self, channel: paramiko.Channel) -> int:
        """Return the exit status of a command that has ended; -1 when it has none, or does not come."""
        channel.status_event.wait(IDLE_TIMEOUT_S)
        return channel.exit_status

    @contextlib.contextmanager
    def sftp(
        self, *, why: str = "the connection says that files go by it", downloads: bool = True
    ) -> Iterator[paramiko.SFTPClient]:
        """
        Speak SFTP over the connection that is open.

        :param why: what it is needed for, as a part of the message that it does not work.
        :param downloads: whether much is to come.
        :raises GpuClusterSetupError: there is no SFTP.
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
        How long it takes to the other side and back, in seconds.

        The kernel knows best, as it does not wait for anybody's processor. Where the connection goes through another
        program, it is how soon the other side has answered at best.
        """
        transport = self._transport
        seen = None if transport is None else shortest_round_trip_s(transport)
        return self._answered_after_s if seen is None else seen

    # -- errors

    @contextlib.contextmanager
    def breaks_explained(self, what: str) -> Iterator[None]:
        """
        Turn what a connection that breaks raises into an error that says so.

        :param what: what is done meanwhile.
        """
        try:
            yield
        except BREAKS as error:
            raise self.broken(f"the connection broke during {what}: {error or type(error).__name__}") from error

    def broken(self, message: str) -> GpuClusterConnectionError:
        """Return the error for something that went wrong on the way."""
        return GpuClusterConnectionError(f"{self.settings.where}: {message}")
