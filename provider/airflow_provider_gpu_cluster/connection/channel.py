"""What paramiko does not offer: channels as files, and settings and measurements of the kernel."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import time
from typing import Any, BinaryIO, cast

import paramiko

from airflow_provider_gpu_cluster.connection.words import cleaned

# What using a connection that breaks may raise.
BREAKS = (OSError, EOFError, paramiko.SSHException)
SAID_BYTES = 2000
# Part of a packet's maximum size that paramiko reserves.
_PACKET_OVERHEAD = 64
_READ_BYTES = 1 << 18
# tcpi_min_rtt in the kernel's struct tcp_info (linux/tcp.h), in microseconds.
_TCP_INFO_BYTES = 192
_MIN_RTT = struct.Struct("I")
_MIN_RTT_AT = 148


def reader(channel: paramiko.Channel, first: bytes = b"") -> io.BufferedReader:
    """
    Return a channel as a file to read from.

    :param first: what was already read from the channel.
    """
    return io.BufferedReader(ChannelFile(channel, first), _READ_BYTES)


def writer(channel: paramiko.Channel) -> BinaryIO:
    """Return a channel as a file to write to."""
    return cast(BinaryIO, _Writer(channel))


class ChannelFile(io.RawIOBase):
    """
    A channel as a file to read from. The end of what arrives on stderr meanwhile is kept in :attr:`stderr`.

    :param first: what was already read from the channel.
    """

    def __init__(self, channel: paramiko.Channel, first: bytes = b"") -> None:
        self._channel = channel
        self._first = first
        self.stderr = b""
        self.until: float | None = None
        """When reading fails although something arrives, by the monotonic clock; None for never."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._first:
            data, self._first = self._first[: len(buffer)], self._first[len(buffer) :]
        else:
            self._take_stderr()
            data = self._received(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _received(self, most: int) -> bytes:
        timeout = self._channel.gettimeout()
        if self.until is not None and time.monotonic() > self.until:
            raise TimeoutError("no answer came, though signs of life did")
        try:
            return self._channel.recv(most)
        except TimeoutError:
            if not timeout:
                raise
            raise TimeoutError(f"nothing came for {timeout:g} s") from None

    def _take_stderr(self) -> None:
        """Make room for more: what is not read there takes up the window of both."""
        while self._channel.recv_stderr_ready():
            self.stderr = (self.stderr + self._channel.recv_stderr(_READ_BYTES))[-SAID_BYTES:]


class _Writer:
    """A channel as a file to write to."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        # What fits into one packet. For a longer piece, paramiko would copy the whole rest for each packet.
        self._most = channel.out_max_packet_size - _PACKET_OVERHEAD

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        for start in range(0, len(view), self._most):
            self._channel.sendall(bytes(view[start : start + self._most]))
        return len(view)

    def flush(self) -> None:
        """Do nothing: nothing is buffered here."""


def execute(channel: paramiko.Channel, command: str) -> None:
    """
    Request the execution of a command, without waiting for the server's confirmation.

    ``Channel.exec_command`` waits for it without a time-out; here the channel's own time-out applies when the reply is
    read. If the server refuses, paramiko closes the channel, which its reader notices. (This saves no round trip with
    OpenSSH, which accepts no data for a command before it has started the command.)
    """
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(command)
    transport = channel.get_transport()
    transport._send_user_message(message)  # type: ignore[attr-defined]


def give_up_on_silence(transport: paramiko.Transport, timeout_s: float) -> None:
    """Let the kernel end a connection whose other side stops acknowledging; by default it waits 15 minutes."""
    with contextlib.suppress(AttributeError, OSError):
        network_socket(transport).setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def send_at_once(transport: paramiko.Transport) -> None:
    """
    Let the kernel send small packets as soon as they are written, not only after the other side has acknowledged.

    Small packets say that a channel's window has room again, and the other side waits for them. If this side sends
    much, the kernel should combine packets instead.
    """
    with contextlib.suppress(AttributeError, OSError):
        network_socket(transport).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def shortest_round_trip_s(transport: paramiko.Transport) -> float | None:
    """Return the shortest round trip in seconds; None if the kernel does not see the other side."""
    with contextlib.suppress(AttributeError, OSError, struct.error):
        # Through a jump host this is a channel, and the kernel sees only the jump host.
        info = cast(socket.socket, transport.sock).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return float(_MIN_RTT.unpack_from(info, _MIN_RTT_AT)[0]) / 1e6
    return None


def network_socket(transport: paramiko.Transport) -> socket.socket:
    """Return the socket of a connection; if it goes through jump hosts, the one to the first of them."""
    sock: object = transport.sock
    while isinstance(sock, paramiko.Channel):
        sock = sock.get_transport().sock
    return cast(socket.socket, sock)


def said_on_stderr(channel: paramiko.Channel, before: bytes = b"") -> bytes:
    """
    Return the end of a command's stderr, without waiting for more.

    :param before: what was read of it before.
    """
    data = before
    while channel.recv_stderr_ready():
        data = (data + channel.recv_stderr(_READ_BYTES))[-SAID_BYTES:]
    return data


def text_of(said: bytes | bytearray) -> str:
    """Return the end of what a command or a login shell has printed, as text; of a traceback, what it ends with."""
    text = cleaned(said[-SAID_BYTES:].decode("utf-8", "backslashreplace"))
    filled = [line for line in text.splitlines() if line.strip()]
    traceback = next((number for number, line in enumerate(filled) if line.startswith("Traceback (most")), len(filled))
    return "\n".join([*filled[:traceback], *filled[traceback:][-1:]]).strip()
