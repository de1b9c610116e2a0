"""
Reads files of lines in slices, of any size and with lines of any length.

What is small is read as a whole. Of what is large, each slice takes pieces from all over it, so that the first one
shows the whole roughly, and each further one shows more.
"""

from __future__ import annotations

import os
from typing import Iterator, NamedTuple, Sequence

SLICE_BYTES = 1 << 21
PIECE_BYTES = 1 << 14
_PIECE_OF_ALL_BYTES = 1 << 18
_AHEAD_BYTES = 1 << 12
# A line beyond this is no line that somebody wants to see as points.
MOST_LINE_BYTES = 1 << 20


class OpenFile(NamedTuple):
    """
    A file of which the first bytes count.

    :param fd: its descriptor.
    :param size: so many bytes.
    """

    fd: int
    size: int


class FileLine(NamedTuple):
    """
    A line of one of several files.

    :param file: number of the file.
    :param start: where it begins in its file, in bytes.
    :param end: where the next one begins.
    :param text: the line without its end; None if it is too long.
    """

    file: int
    start: int
    end: int
    text: bytes | None


def slices_of(total: int) -> int:
    """Return in how many slices so many bytes are read."""
    return max(1, -(-total // SLICE_BYTES))


def lines_of_slice(files: Sequence[OpenFile], number: int, slices: int) -> Iterator[FileLine]:
    """
    Return the lines of one slice, in the order of the files and of the lines in each.

    :param number: of the slice, from 0.
    :param slices: how many there are.
    """
    size = PIECE_BYTES if slices > 1 else _PIECE_OF_ALL_BYTES
    place, before = _place(number, slices), 0
    for index, file in enumerate(files):
        pieces = -(-file.size // size)
        chosen = range((place - before) % slices, pieces, slices)
        for piece in chosen:
            yield from _lines_from(index, file, piece * size, min((piece + 1) * size, file.size))
        before += pieces
    if number == 0 and files and pieces and pieces - 1 not in chosen:
        # What is newest belongs to the first impression.
        yield from _lines_from(index, file, (pieces - 1) * size, file.size)


def _place(number: int, slices: int) -> int:
    """Return which of each ``slices`` neighbouring pieces belong to a slice: later slices lie amid earlier ones."""
    return sorted(range(slices), key=lambda place: (place * 0.6180339887498949) % 1.0)[number]


def _lines_from(index: int, file: OpenFile, start: int, end: int) -> Iterator[FileLine]:
    """Return the lines that begin within a part of a file. A last line without an end is still being written."""
    data = os.pread(file.fd, end - start, start)
    at = start
    if start and os.pread(file.fd, 1, start - 1) != b"\n":
        first = data.find(b"\n") + 1
        if first == 0:
            return
        data, at = data[first:], start + first
    *whole, rest = data.split(b"\n")
    for text in whole:
        yield FileLine(index, at, at + len(text) + 1, text)
        at += len(text) + 1
    if rest:
        line = _long_line(index, file, at, rest)
        if line is not None:
            yield line


def _long_line(index: int, file: OpenFile, start: int, text: bytes) -> FileLine | None:
    """Return a line that goes on beyond its piece; None if it has no end."""
    parts, length = [text], len(text)
    while length < MOST_LINE_BYTES:
        ahead = max(_AHEAD_BYTES, length)
        more = os.pread(file.fd, max(0, min(ahead, file.size - start - length)), start + length)
        if not more:
            return None
        end = more.find(b"\n")
        if end >= 0:
            return FileLine(index, start, start + length + end + 1, b"".join([*parts, more[:end]]))
        parts.append(more)
        length += len(more)
    return FileLine(index, start, start + length, None)
