"""A file on the cluster, by SFTP, with many requests on their way: none waits for the answer to the one before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import paramiko
from paramiko.sftp import CMD_DATA, CMD_READ, CMD_WRITE, int64

from airflow_provider_gpu_cluster.connection.channel import BREAKS

# Every server takes and gives so much at once; one that gives less is asked for the rest. With what SFTP adds, what is
# written still is one packet of SSH.
READ_BYTES = 1 << 15
_WRITE_BYTES = 31 << 10
# OpenSSH lets 2 MiB of a channel be on their way.
_MOST_WRITES = 64
# Enough for a long line, as in download_channel.py.
_MOST_READS = 256


class SftpRefusal(Exception):
    """The server answered that it cannot do what it was asked for. That is no fault of the connection."""


def sftp_path(root_dir: str, path: str) -> str:
    """
    Return the path by which SFTP knows something below the root: it starts in the home directory and knows no tilde.

    :param root_dir: the root, as the connection gives it.
    """
    if root_dir == "~" or root_dir.startswith("~/"):
        root_dir = root_dir[1:].lstrip("/") or "."
    return f"{root_dir.rstrip('/')}/{path}"


class PipelinedFile:
    """
    An open file. paramiko's own reads ahead without bounds, and now and then waits for all that it has written.

    :param mode: as for ``open``.
    :raises SftpRefusal: it cannot be opened.
    """

    def __init__(self, sftp: paramiko.SFTPClient, path: bytes, mode: str) -> None:
        self.size = 0
        """Bytes that were written."""
        self._sftp: Any = sftp
        self._answers: dict[int, bytes] = {}
        self._writes = 0
        self._refusal: Exception | None = None
        with refusals_told(sftp):
            self._file = sftp.open(path, mode)

    def __enter__(self) -> PipelinedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """
        Add bytes at the end. They are there after :meth:`finish`.

        :raises SftpRefusal: these or others before could not be written.
        """
        view = memoryview(data)
        for start in range(0, len(view), _WRITE_BYTES):
            while self._writes >= _MOST_WRITES:
                self._hear()
            chunk = bytes(view[start : start + _WRITE_BYTES])
            self._sftp._async_request(self, CMD_WRITE, self._file.handle, int64(self.size), chunk)
            self._writes += 1
            self.size += len(chunk)

    def finish(self) -> None:
        """
        Wait until everything is written.

        :raises SftpRefusal: it could not be.
        """
        while self._writes:
            self._hear()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """
        Yield what it holds between two offsets, as far as it reaches.

        :raises SftpRefusal: it cannot be read.
        """
        asked: deque[tuple[int, int, int]] = deque()
        at = start
        broken: Exception | None = None
        while at < end or asked:
            while at < end and len(asked) < _MOST_READS and broken is None:
                try:
                    asked.append(self._ask(at, min(end, at + READ_BYTES)))
                    at = asked[-1][2]
                except BREAKS as error:
                    # What has come before that counts.
                    broken = error
            if broken is not None and not asked:
                raise broken
            number, begin, stop = asked.popleft()
            while number not in self._answers:
                self._hear()
            data = self._answers.pop(number)
            if not data:
                return
            if begin + len(data) < stop:
                asked.appendleft(self._ask(begin + len(data), stop))
            yield data

    def _ask(self, start: int, end: int) -> tuple[int, int, int]:
        number: int = self._sftp._async_request(self, CMD_READ, self._file.handle, int64(start), end - start)
        return number, start, end

    def _hear(self) -> None:
        """Take one answer."""
        self._sftp._read_response()
        if self._refusal is not None:
            raise SftpRefusal(_text(self._refusal)) from self._refusal

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """Receive the answer to one request; the name is that by which paramiko calls it."""
        if kind == CMD_DATA:
            self._answers[number] = message.get_string()
            return
        try:
            self._sftp._convert_status(message)
            self._writes -= 1
        except EOFError:
            self._answers[number] = b""
        except OSError as error:
            self._refusal = self._refusal or error


@contextlib.contextmanager
def refusals_told(sftp: paramiko.SFTPClient) -> Iterator[None]:
    """Tell what the server refuses from what a broken connection raises; with paramiko both are an ``OSError``."""
    try:
        yield
    except OSError as error:
        channel = sftp.get_channel()
        if channel is None or channel.closed or isinstance(error, TimeoutError):
            raise
        raise SftpRefusal(_text(error)) from error


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
