"""A StatsD server: it takes metrics by UDP and keeps them as they come."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class StatsdServer:
    """
    Listens on loopback.

    ::

        with StatsdServer() as statsd:
            ...
            assert "airflow.gpu_cluster.jobs_started:1|c" in statsd.lines
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.lines: list[str] = []
        """What has come, one metric each."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> StatsdServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._closing.is_set():
            self.lines += self._socket.recv(1 << 16).decode().splitlines()

    def of(self, name: str, *tags: str) -> list[str]:
        """Return the metrics of that name, without a prefix, that have these tags, written in any form."""
        return [line for line in list(self.lines) if f".{name}" in line and all(tag in line for tag in tags)]
