"""What a job writes to stderr goes to two logs, byte for byte."""

from __future__ import annotations

import collections
import contextlib
import os
from typing import TYPE_CHECKING

from ..store import records

if TYPE_CHECKING:
    from ..protocol.records import LogStarts

_PIECE = 1 << 16
_KEPT_BYTES = 1 << 20


class ErrorsRelay:
    """
    Copies what comes out of a pipe to both logs of a job.

    :param log: path of the log of all output.
    :param error_log: path of the log of errors.
    """

    def __init__(self, log: str, error_log: str) -> None:
        #: Open file for all other output.
        self.log = _log_file(log)
        self._error_log = _log_file(error_log)
        #: The two ends of the pipe; the job writes into the second.
        self.source, self.end = os.pipe()
        os.set_blocking(self.source, False)
        # The last errors, which a full disk cannot lose.
        self._last: collections.deque[bytes] = collections.deque()
        self._last_bytes = 0

    def begin(self, line: str) -> LogStarts:
        """
        Return where the output that comes now begins in each log.

        :param line: a line of gpu-run's own to write before it; empty for none.
        """
        if line:
            _write_all(self.log, "{}{}\n".format("\n" if _ends_within_a_line(self.log) else "", line).encode())
        return {"training": os.fstat(self.log).st_size, "error": os.fstat(self._error_log).st_size}

    def tell(self, text: str) -> None:
        """Write something of gpu-run's own into both logs."""
        for fd in (self.log, self._error_log):
            _write_all(fd, text.encode())

    def started(self) -> None:
        """Close what only the job writes to."""
        os.close(self.end)

    def copy(self) -> bool | None:
        """Copy a piece; return False when nothing more will come, and None when there is nothing now."""
        try:
            piece = os.read(self.source, _PIECE)
        except BlockingIOError:
            return None
        self._keep(piece)
        for fd in (self.log, self._error_log):
            _write_all(fd, piece)
        return bool(piece)

    def last(self) -> bytes:
        """Return the last errors."""
        return b"".join(self._last)

    def _keep(self, piece: bytes) -> None:
        self._last.append(piece)
        self._last_bytes += len(piece)
        while self._last_bytes - len(self._last[0]) > _KEPT_BYTES:
            self._last_bytes -= len(self._last.popleft())

    def copy_rest(self) -> None:
        """Copy all that is there. A process that left the process tree may still keep the pipe open."""
        while self.copy():
            pass


def _log_file(path: str) -> int:
    with records.log_file(path) as file:
        return os.dup(file.fileno())


def _ends_within_a_line(log: int) -> bool:
    """Return whether the last line of a log is incomplete."""
    size = os.fstat(log).st_size
    with contextlib.suppress(OSError), open(f"/proc/self/fd/{log}", "rb") as file:
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")
    return False


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError:
            # A full disk must neither block the job nor end its supervisor.
            return
