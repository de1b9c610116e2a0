"""Reads small files by SFTP, many at a time: one after the other, each would take three round trips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import paramiko
from paramiko.sftp import CMD_CLOSE, CMD_DATA, CMD_HANDLE, CMD_OPEN, CMD_READ, SFTP_FLAG_READ, int64

from airflow_provider_gpu_cluster.connection.sftp import READ_BYTES, SftpRefusal, refusals_told

# A server may allow only 100 open files.
_MOST_OPEN = 64
_MOST_BYTES = 8 << 20


def read_small_files(
    sftp: paramiko.SFTPClient, files: Sequence[tuple[bytes, int]]
) -> Iterator[tuple[int, bytes | SftpRefusal]]:
    """
    Yield each file's place in the sequence and its content, or a refusal if it cannot be read.

    :param files: path and size of each. If a file has grown, only that size is read; if it was cut, what is left.
    """
    batch: list[int] = []
    size = 0
    for number, (_, its_size) in enumerate(files):
        if batch and (len(batch) >= _MOST_OPEN or size + its_size > _MOST_BYTES):
            yield from zip(batch, _OpenedFiles(sftp).read([files[one] for one in batch]), strict=True)
            batch, size = [], 0
        batch.append(number)
        size += its_size
    yield from zip(batch, _OpenedFiles(sftp).read([files[one] for one in batch]), strict=True)


class _OpenedFiles:
    """Opens, reads and closes files together."""

    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp: Any = sftp
        self._answers: dict[int, tuple[int, paramiko.Message]] = {}

    def read(self, files: list[tuple[bytes, int]]) -> list[bytes | SftpRefusal]:
        """Return the content of each, or why it cannot be read."""
        opens = [self._ask(CMD_OPEN, path, SFTP_FLAG_READ, paramiko.SFTPAttributes()) for path, _ in files]
        handles = [self._answer(number, CMD_HANDLE) for number in opens]
        reads: list[list[int]] = []
        for handle, (_, size) in zip(handles, files, strict=True):
            starts = range(0, size, READ_BYTES) if isinstance(handle, bytes) else ()
            asked = [self._ask(CMD_READ, handle, int64(at), min(READ_BYTES, size - at)) for at in starts]
            reads.append(asked)
        contents = [
            self._joined(numbers) if isinstance(handle, bytes) else handle
            for handle, numbers in zip(handles, reads, strict=True)
        ]
        closes = [self._ask(CMD_CLOSE, handle) for handle in handles if isinstance(handle, bytes)]
        for number in closes:
            self._answer(number, CMD_CLOSE)
        return contents

    def _joined(self, numbers: list[int]) -> bytes | SftpRefusal:
        answers = [self._answer(number, CMD_DATA) for number in numbers]
        refusals = [answer for answer in answers if isinstance(answer, SftpRefusal)]
        return refusals[0] if refusals else b"".join(answer for answer in answers if isinstance(answer, bytes))

    def _ask(self, *request: Any) -> int:
        number: int = self._sftp._async_request(self, *request)
        return number

    def _answer(self, number: int, kind: int) -> bytes | SftpRefusal:
        """Wait for an answer; at the end of a file it is empty."""
        while number not in self._answers:
            self._sftp._read_response()
        found, message = self._answers.pop(number)
        if found == kind:
            return message.get_string()
        try:
            with refusals_told(self._sftp):
                self._sftp._convert_status(message)
        except EOFError:
            pass
        except SftpRefusal as refusal:
            return refusal
        return b""

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """Receive an answer; paramiko calls this method by its name."""
        self._answers[number] = (kind, message)
