"""A channel for downloads: it allows much data in flight, and buffers it for a reader that takes much at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, cast

import paramiko
from paramiko.buffered_pipe import PipeTimeout

from airflow_provider_gpu_cluster.connection.channel import send_at_once

# How long to wait for more data once there is some. At full speed a megabyte takes that long.
_LINGER_S = 0.005
# Data in flight; as much as OpenSSH's own programs allow. sshd reads from a command whatever fits into the window, and
# copies waiting data again and again: the larger the window, the longer that takes on a slow connection.
_WINDOW_BYTES = 2 << 20
# OpenSSH uses packets of this size if it is the faster side, and each packet costs the slower side the same.
_PACKET_BYTES = 1 << 16


def open_download(transport: paramiko.Transport, timeout: float) -> paramiko.Channel:
    """
    Open a channel for receiving much data.

    :param timeout: how long the server may take to agree, in seconds.
    """
    send_at_once(transport)
    channel = transport.open_session(window_size=_WINDOW_BYTES, max_packet_size=_PACKET_BYTES, timeout=timeout)
    # Nothing can have arrived yet.
    channel.in_buffer = cast(Any, DownloadPipe())
    return channel


class DownloadPipe:
    """
    A channel's buffer that keeps packets unchanged, and wakes its reader once as much data is there as it wants.

    paramiko's own buffer copies each packet twice, and wakes the reader for each: 30 times for a megabyte.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._packets: deque[bytes] = deque()
        self._size = 0
        self._wanted = 1

    def feed(self, data: bytes) -> None:
        """Add a packet."""
        with self._lock:
            self._packets.append(data)
            self._size += len(data)
            if self._size >= self._wanted:
                self._changed.notify_all()

    def read_ready(self) -> bool:
        """Return whether there is something."""
        return self._size > 0

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """
        Return up to so many bytes; none only if the other side has closed the channel.

        :raises PipeTimeout: nothing arrived within the time-out, in seconds.
        """
        with self._lock:
            if not self._wait_for(1, timeout) and not self._closed:
                raise PipeTimeout()
            self._wait_for(nbytes, _LINGER_S)
            return self._take(nbytes)

    def close(self) -> None:
        """Note that no more data will arrive."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return self._size

    def _wait_for(self, nbytes: int, timeout: float | None) -> bool:
        """Wait until so many bytes are there; False if they do not arrive in time, or at all."""
        until = None if timeout is None else time.monotonic() + timeout
        self._wanted = nbytes
        while self._size < nbytes and not self._closed:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self._changed.wait(left)
        return self._size >= nbytes

    def _take(self, nbytes: int) -> bytes:
        taken: list[bytes] = []
        while nbytes and self._packets:
            packet = self._packets.popleft()
            if len(packet) > nbytes:
                self._packets.appendleft(packet[nbytes:])
                packet = packet[:nbytes]
            nbytes -= len(packet)
            self._size -= len(packet)
            taken.append(packet)
        return b"".join(taken)
