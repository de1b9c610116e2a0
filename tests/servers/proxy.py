"""A TCP proxy on loopback that cuts, freezes, delays and counts connections."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator

_PIECE = 1 << 15


class CutProxy:
    """
    Passes connections on to a server, and fails on command.

    :param target: host and port of the server.
    """

    host = "127.0.0.1"

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.connections = 0
        """Connections accepted so far."""
        self.delay_s = 0.0
        """Seconds that each piece takes to get through, in each direction, as on a long line."""
        self.passed = {"up": 0, "down": 0}
        """Bytes that got through so far: to the server, and from it."""
        self.refusing = False
        """Whether new connections are closed at once."""
        self._open: set[socket.socket] = set()
        self._frozen: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._bytes_left: int | None = None
        self._pieces_left: int | None = None
        self._budget: tuple[int | None, int | None] = (None, None)
        self._cuts_left = 0
        self._points: Iterator[int] = iter(())
        self._direction = "both"
        self._listener = socket.create_server((self.host, 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True).start()

    def cut_after(
        self, *, nbytes: int | None = None, pieces: int | None = None, direction: str = "both", times: int = 1
    ) -> None:
        """
        Cut a connection when so much has passed, over all connections, counted from now and from each cut.

        :param nbytes: bytes that pass before the cut.
        :param pieces: reads from a socket that pass before the cut; one SSH packet is usually one.
        :param direction: what counts: ``up`` (to the server), ``down`` or ``both``.
        :param times: how many connections to cut; those after them live.
        """
        with self._lock:
            self._bytes_left, self._pieces_left = nbytes, pieces
            self._budget = (nbytes, pieces)
            self._direction = direction
            self._cuts_left = times

    def cut_at(self, points: Iterable[int]) -> None:
        """Cut one connection after the other when so many bytes have come from the server since the last cut."""
        self._points = iter(points)
        self.cut_after(nbytes=next(self._points), direction="down")

    def cut_now(self) -> None:
        """Cut every open connection."""
        with self._lock:
            open_now = list(self._open)
            self._open.clear()
        for connection in open_now:
            _cut(connection)

    @property
    def is_idle(self) -> bool:
        """Whether no connection is open."""
        with self._lock:
            return not self._open

    def freeze_now(self) -> None:
        """Let nothing pass any more over the connections that are open, and leave them open."""
        with self._lock:
            self._frozen |= self._open

    def close(self) -> None:
        """Stop listening and cut what is open."""
        self._frozen.clear()
        _cut(self._listener)
        self.cut_now()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            for connection in (client, server):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for source, sink, direction in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._pass, args=(source, sink, direction), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._deliver, args=(line, source, sink, direction), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                line.put((time.monotonic() + self.delay_s, data))
        line.put((0.0, b""))

    def _deliver(
        self,
        line: queue.SimpleQueue[tuple[float, bytes]],
        source: socket.socket,
        sink: socket.socket,
        direction: str,
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = line.get()
                if not data:
                    break
                time.sleep(max(0.0, due - time.monotonic()))
                while source in self._frozen:
                    time.sleep(0.02)
                allowed, cut = self._allow(len(data), direction)
                sink.sendall(data[:allowed])
                self.passed[direction] += allowed
                if cut:
                    break
        with self._lock:
            self._open -= {source, sink}
        _cut(source)
        _cut(sink)

    def _allow(self, size: int, direction: str) -> tuple[int, bool]:
        """Return how many of these bytes may pass, and whether to cut then."""
        with self._lock:
            if self._cuts_left == 0 or self._direction not in ("both", direction):
                return size, False
            allowed, cut = size, False
            if self._pieces_left is not None:
                allowed = size if self._pieces_left else 0
                self._pieces_left -= 1
                cut = self._pieces_left <= 0
            if self._bytes_left is not None:
                allowed = min(allowed, self._bytes_left)
                self._bytes_left -= allowed
                cut = cut or self._bytes_left == 0
            if cut:
                self._cuts_left -= 1
                self._bytes_left, self._pieces_left = self._budget
                if (point := next(self._points, None)) is not None:
                    self._cuts_left, self._bytes_left = 1, point
            return allowed, cut


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
