"""Receives one output of a job as the verb ``send-output`` sends it, piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import CollectError
from airflow_provider_gpu_cluster.gpu_run.protocol.files import MAX_ZEROS, PIECE
from airflow_provider_gpu_cluster.transfer.file_stream import fill, garbled, is_count, is_header, read_batch, read_line

_ZEROS = bytes(PIECE)


def pieces_of(stream: BinaryIO, path: str, stamp: str, size: int) -> Iterator[bytes]:
    """
    Yield the bytes of a file, in pieces of limited size.

    :param stamp: of the file as it was when its size was told.
    :raises CollectError: it has changed, or could not be read to its end, or what arrived is not what was sent.
    :raises BrokenStream: the stream ended early.
    :raises GarbledStream: it contains something that no correct sender writes.
    """
    digest = hashlib.sha256()
    line = read_line(stream)
    if "small" in line:
        [(number, _, sha256, content)] = read_batch(line["small"], stream) or [(1, 0, "", memoryview(b""))]
        if number != 0 or len(content) != size:
            raise _changed(path)
        digest.update(content)
        _check(path, digest.hexdigest(), sha256)
        yield bytes(content)
        return
    _refuse_fault(path, line)
    if not is_header(line):
        raise garbled(line)
    if (line["size"], line["at"], line["until"], line["stamp"]) != (size, 0, size, stamp):
        raise _changed(path)
    left = size
    while "sha256" not in (line := read_line(stream)):
        _refuse_fault(path, line)
        for piece in _part(line, left, stream):
            digest.update(piece)
            left -= len(piece)
            yield piece
    if left:
        raise garbled(line)
    _check(path, digest.hexdigest(), line["sha256"])


def checksum_of(stream: BinaryIO, path: str) -> str:
    """
    Return the SHA-256 of a file.

    :raises CollectError: it has changed meanwhile, or cannot be read.
    """
    sha256 = read_line(stream).get("sha256")
    if not isinstance(sha256, str):
        raise CollectError(f"the output {path!r} cannot be read, or changed while its checksum was computed")
    return sha256


def _part(line: dict[str, Any], left: int, stream: BinaryIO) -> Iterator[bytes]:
    data, zeros = line.get("data"), line.get("zeros")
    if is_count(data) and 0 < data <= min(left, PIECE):
        buffer = bytearray(data)
        fill(memoryview(buffer), stream)
        yield bytes(buffer)
    elif is_count(zeros) and 0 < zeros <= min(left, MAX_ZEROS):
        while zeros:
            yield _ZEROS[: min(zeros, PIECE)]
            zeros -= min(zeros, PIECE)
    else:
        raise garbled(line)


def _refuse_fault(path: str, line: dict[str, Any]) -> None:
    if "fault" in line:
        raise CollectError(f"the output {path!r} {cleaned(str(line['fault']))}")


def _check(path: str, here: str, there: Any) -> None:
    if here != there:
        raise CollectError(f"the output {path!r} did not arrive as it was sent; download it again")


def _changed(path: str) -> CollectError:
    return CollectError(f"the output {path!r} has changed since it was listed; download it again")
