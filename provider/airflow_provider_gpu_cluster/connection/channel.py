"""What paramiko leaves to us of a connection: channels as files, and what only the kernel knows."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
from typing import Any, BinaryIO, cast

import paramiko

# What using a connection that breaks may raise.
BREAKS = (OSError, EOFError, paramiko.SSHException)
SAID_BYTES = 2000
# What paramiko leaves free of a packet's greatest size.
_PACKET_OVERHEAD = 64
_READ_BYTES = 1 << 18
# tcpi_min_rtt in the kernel's struct tcp_info (linux/tcp.h), in microseconds.
_TCP_INFO_BYTES = 192
_MIN_RTT = struct.Struct("I")
_MIN_RTT_AT = 148


def reader(channel: paramiko.Channel) -> io.BufferedReader:
    """Return a channel as a file to read from."""
    return io.BufferedReader(_Raw(channel), _READ_BYTES)


def writer(channel: paramiko.Channel) -> BinaryIO:
    """Return a channel as a file to write to."""
    return cast(BinaryIO, _Writer(channel))


class _Raw(io.RawIOBase):
    """A channel as a file to read from."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Writer:
    """A channel as a file to write to."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        # So much goes into one packet. paramiko would copy all the rest of a longer piece for each.
        self._most = channel.out_max_packet_size - _PACKET_OVERHEAD

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        for start in range(0, len(view), self._most):
            self._channel.sendall(bytes(view[start : start + self._most]))
        return len(view)

    def flush(self) -> None:
        """Nothing waits here."""


def execute(channel: paramiko.Channel, command: str) -> None:
    """
    Have a command executed, without waiting for the server to say that it will.

    ``Channel.exec_command`` waits for that without any time-out; here the channel's own holds, when the reply is read.
    Should the server refuse, paramiko closes the channel, which its reader sees. (It saves no round trip with OpenSSH,
    which takes no data for a command before it has started it.)
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
    """Have the kernel end a connection whose other side stopped acknowledging; by default that takes it 15 minutes."""
    with contextlib.suppress(AttributeError, OSError):
        _socket(transport).setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def send_at_once(transport: paramiko.Transport) -> None:
    """
    Have the kernel send what is small as soon as it is written, rather than when the other side has acknowledged.

    What is small is word that there is room in a channel's window again, for which the other side waits. Where this
    side sends much, the kernel had better put its packets together.
    """
    with contextlib.suppress(AttributeError, OSError):
        _socket(transport).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def shortest_round_trip_s(transport: paramiko.Transport) -> float | None:
    """Return how long the line there and back is, in seconds; None where the kernel does not see the other side."""
    with contextlib.suppress(AttributeError, OSError, struct.error):
        info = _socket(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return float(_MIN_RTT.unpack_from(info, _MIN_RTT_AT)[0]) / 1e6
    return None


def _socket(transport: paramiko.Transport) -> socket.socket:
    return cast(socket.socket, transport.sock)


def said_on_stderr(channel: paramiko.Channel) -> bytes:
    """Return the first of what a command has said there, without waiting for more."""
    data = b""
    while len(data) < SAID_BYTES and channel.recv_stderr_ready():
        data += channel.recv_stderr(SAID_BYTES)
    return data


def text_of(said: bytes | bytearray) -> str:
    """Return the last of what a command or a login shell has said."""
    return said[-SAID_BYTES:].decode("utf-8", "backslashreplace").strip()
