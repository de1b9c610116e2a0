"""A channel for downloads: much may be on its way at once, and what has come waits for a reader that wants much."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, cast

import paramiko
from paramiko.buffered_pipe import PipeTimeout

from airflow_provider_gpu_cluster.connection.channel import send_at_once

# How long to wait for more when there is something already. At full speed a megabyte takes that long.
_LINGER_S = 0.005
# What may be on its way; as much as OpenSSH's own programs allow. sshd takes from a command whatever the window has
# room for, and copies what waits again and again: the larger the window, the longer that takes it on a slow line.
_WINDOW_BYTES = 2 << 20
# OpenSSH makes use of it when it is the faster side, and each packet costs the slower side the same.
_PACKET_BYTES = 1 << 16


def open_download(transport: paramiko.Transport, timeout: float) -> paramiko.Channel:
    """
    Open a channel on which much is to come.

    :param timeout: for the server to agree, in seconds.
    """
    send_at_once(transport)
    channel = transport.open_session(window_size=_WINDOW_BYTES, max_packet_size=_PACKET_BYTES, timeout=timeout)
    # Nothing can have come yet.
    channel.in_buffer = cast(Any, DownloadPipe())
    return channel


class DownloadPipe:
    """
    A channel's buffer that keeps packets as they came, and wakes its reader when as much is there as it wants.

    paramiko's own copies each packet twice, and wakes the reader for every one: 30 times for a megabyte.
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
        Return up to so many bytes, and none only when the other side has closed the channel.

        :raises PipeTimeout: there was nothing for that long, in seconds.
        """
        with self._lock:
            if not self._wait_for(1, timeout) and not self._closed:
                raise PipeTimeout()
            self._wait_for(nbytes, _LINGER_S)
            return self._take(nbytes)

    def close(self) -> None:
        """Note that nothing comes any more."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return self._size

    def _wait_for(self, nbytes: int, timeout: float | None) -> bool:
        """Wait until so much is there; False when it is not, in time or ever."""
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
