"""What a job prints: its two logs, and a pipe, since what it writes to stderr goes to both, byte for byte."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ..store import records
from .diagnosis import TAIL_BYTES, read_end

if TYPE_CHECKING:
    from ..protocol.records import LogStarts
    from ..store.directories import Attempt

_PIECE = 1 << 16


class JobOutput:
    """The logs of a job, to which its attempts add."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._path = attempt.job.at("logs", "training.log")
        #: Open file for all output but that of the pipe.
        self.log = _log_file(self._path)
        self._error_log = _log_file(attempt.job.at("logs", "error.log"))
        #: The two ends of the pipe; the job writes into the second.
        self.source, self.end = os.pipe()
        os.set_blocking(self.source, False)
        #: The last errors, which a full disk cannot lose.
        self.last = b""

    def begin(self, why: str) -> None:
        """
        Note where this attempt's output begins.

        :param why: why it goes on where another attempt has ended; empty if it does not.
        """
        if why:
            if _ends_within_a_line(self.log):
                _write_all(self.log, b"\n")
            _write_all(self.log, f"gpu-run: {why}\n".encode())
        with contextlib.suppress(OSError):
            sizes: LogStarts = {"training": os.fstat(self.log).st_size, "error": os.fstat(self._error_log).st_size}
            self._attempt.note_log_starts(sizes)

    def started(self) -> None:
        """Close what only the job writes to."""
        os.close(self.end)

    def copy(self) -> bool | None:
        """Copy a piece; return False when nothing more will come, and None when there is nothing now."""
        try:
            piece = os.read(self.source, _PIECE)
        except BlockingIOError:
            return None
        self.last = (self.last + piece)[-TAIL_BYTES:]
        for fd in (self.log, self._error_log):
            _write_all(fd, piece)
        return bool(piece)

    def last_of_attempt(self) -> bytes:
        """Return the end of what this attempt has printed, first of its errors."""
        start = self._attempt.log_starts()["training"]
        return self.last + read_end(self._path, min(TAIL_BYTES, max(0, os.fstat(self.log).st_size - start)))

    def copy_rest(self) -> None:
        """Copy all that is there. A process that left the process tree may still keep the pipe open."""
        while self.copy():
            pass


def _log_file(path: str) -> int:
    with records.log_file(path) as file:
        return os.dup(file.fileno())


def _ends_within_a_line(log: int) -> bool:
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
