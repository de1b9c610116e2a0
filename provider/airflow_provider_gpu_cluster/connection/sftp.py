"""A file on the cluster by SFTP, with many requests in flight: none waits for the answer to the one before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import paramiko
from paramiko.sftp import CMD_DATA, CMD_READ, CMD_WRITE, int64

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.words import words_of

# Every server accepts and returns this much at once; if it returns less, the rest is requested again. With SFTP's
# overhead, a write still fits into one packet of SSH.
READ_BYTES = 1 << 15
_WRITE_BYTES = 31 << 10
# OpenSSH allows 2 MiB of a channel in flight.
_MOST_WRITES = 64
# Enough for a long round trip, as in download_channel.py.
_MOST_READS = 256


class SftpRefusal(Exception):
    """The server refused a request. This is not a fault of the connection."""


def sftp_path(root_dir: str, path: str) -> str:
    """
    Return the SFTP path of something below the root: SFTP starts in the home directory and does not expand tildes.

    :param root_dir: the root, from the connection.
    """
    if root_dir == "~" or root_dir.startswith("~/"):
        root_dir = root_dir[1:].lstrip("/") or "."
    return f"{root_dir.rstrip('/')}/{path}"


class PipelinedFile:
    """
    An open file. paramiko's own file reads ahead without limit, and at times waits for everything it has written.

    :param mode: as for ``open``.
    :raises SftpRefusal: the file cannot be opened.
    """

    def __init__(self, sftp: paramiko.SFTPClient, path: bytes, mode: str) -> None:
        self.size = 0
        """Number of bytes written."""
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
        """Close the file."""
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """
        Append bytes. They are written for certain only after :meth:`finish`.

        :raises SftpRefusal: these or earlier bytes could not be written.
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

        :raises SftpRefusal: something could not be written.
        """
        while self._writes:
            self._hear()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """
        Yield the bytes between two offsets, up to the end of the file.

        :raises SftpRefusal: the file cannot be read.
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
                    # Answers that arrived before that still count.
                    broken = error
            if broken is not None and not asked:
                raise broken
            number, begin, stop = asked.popleft()
            while number not in self._answers:
                self._hear()
            data = self._answers.pop(number)
            if not data:
                return
            if len(data) > stop - begin:
                raise SftpRefusal("the server sends more than it was asked for")
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
            raise SftpRefusal(words_of(self._refusal)) from self._refusal

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """Receive the answer to one request; paramiko calls this method by its name."""
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
    """Distinguish a server's refusal from a broken connection; with paramiko both are an ``OSError``."""
    try:
        yield
    except OSError as error:
        channel = sftp.get_channel()
        if channel is None or channel.closed or isinstance(error, TimeoutError):
            raise
        raise SftpRefusal(words_of(error)) from error
