"""Reads the stream of files of the verb ``send``, and checks everything in it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard, cast

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.files.partial_file import PartialFile
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.gpu_run.protocol.files import (
    MAX_BATCH_BYTES,
    MAX_BATCH_FILES,
    MAX_ZEROS,
    PIECE,
    SMALL,
)
from airflow_provider_gpu_cluster.transfer.patience import Patience

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import FileHeader, OutputEntry

LINE_BYTES = 1 << 16


def read_line(stream: BinaryIO, limit: int = LINE_BYTES) -> dict[str, Any]:
    """Read one line of JSON, skipping signs of life."""
    patience = Patience()
    while not (line := lines.read_line(stream, limit)):
        patience.sign_of_life()
    return line


def fill(view: memoryview, stream: BinaryIO, keep: Callable[[memoryview], None] = lambda piece: None) -> None:
    """
    Read as many bytes as fit.

    :param keep: receives them; if the stream breaks off, those that have arrived.
    """
    filled = 0
    try:
        while filled < len(view):
            count = cast(io.BufferedIOBase, stream).readinto1(view[filled:])
            if not count:
                raise lines.BrokenStream("the stream of files broke off")
            filled += count
    finally:
        keep(view[:filled])


def read_batch(rows: Any, stream: BinaryIO) -> list[tuple[int, int, str, memoryview]]:
    """
    Read a batch of small files.

    :param rows: the entry of each file in the line before the batch.
    :return: number, mode, SHA-256 and content of each.
    :raises GarbledStream: there are too many, or they are too large.
    """
    if not isinstance(rows, list) or len(rows) > MAX_BATCH_FILES or not all(map(is_row, rows)):
        raise garbled(rows)
    total = sum(row[1] for row in rows)
    if total > MAX_BATCH_BYTES:
        raise garbled(rows)
    content = memoryview(bytearray(total))
    fill(content, stream)
    files = []
    for number, size, mode, sha256 in rows:
        files.append((number, mode, sha256, content[:size]))
        content = content[size:]
    return files


def take_part(
    line: dict[str, Any],
    partial: PartialFile,
    left: int,
    stream: BinaryIO,
    buffer: memoryview,
    count: Callable[[int], None],
) -> None:
    """
    Append the next part of a file to its partial file.

    :param line: the line before the part.
    :param left: how many bytes may still arrive.
    :param buffer: buffer for one part.
    :param count: called with the number of bytes that were added, even if the stream breaks off among them.
    :raises GarbledStream: the line is not valid here.
    """
    data, zeros = line.get("data"), line.get("zeros")
    if is_count(data) and 0 < data <= min(left, PIECE):

        def keep(piece: memoryview) -> None:
            partial.write(piece)
            count(len(piece))

        fill(buffer[:data], stream, keep)
    elif is_count(zeros) and 0 < zeros <= min(left, MAX_ZEROS):
        partial.write_zeros(zeros)
        count(zeros)
    elif line:
        raise garbled(line)


def is_count(value: Any) -> TypeGuard[int]:
    """Return whether a value is a number of something."""
    return type(value) is int and 0 <= value < 1 << 63


def is_entry(entry: OutputEntry) -> bool:
    """Return whether a value can be a file in the list of outputs."""
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or not isinstance(entry.get("kind"), str):
        return False
    if entry["kind"] == "file" and "stamp" not in entry and is_count(entry.get("size")) and entry["size"] >= SMALL:
        return False
    numbers = [entry.get("size"), entry.get("mode"), entry.get("needs", 0)]
    texts = [entry.get("stamp", ""), entry.get("target", "")]
    return all(map(is_count, numbers)) and all(isinstance(text, str) for text in texts)


def is_row(row: Any) -> bool:
    """Return whether a value can be a small file's number, size, mode and SHA-256."""
    if not isinstance(row, list) or len(row) != 4:
        return False
    return all(map(is_count, row[:3])) and isinstance(row[3], str)


def is_header(header: dict[str, Any]) -> TypeGuard[FileHeader]:
    """Return whether a value can stand before a file that comes in parts."""
    numbers = [header.get(name) for name in ("file", "mode", "at", "until", "size")]
    return all(map(is_count, numbers)) and header["until"] <= header["size"] and isinstance(header.get("stamp"), str)


def garbled(what: object) -> lines.GarbledStream:
    """Return the error for something that is not valid here."""
    return lines.GarbledStream(f"the stream of files is garbled at {cleaned(repr(what)[:60])}")
