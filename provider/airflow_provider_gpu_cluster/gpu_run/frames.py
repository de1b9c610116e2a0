"""
Files as a stream: for each a line of JSON, its bytes, and a line with their SHA-256.

::

    {"path": "a/b.txt", "kind": "file", "size": 3, "mode": 420}
    <3 bytes>
    {"sha256": "..."}
    {"path": "a/empty", "kind": "dir", "mode": 493}
    {"path": "a/link", "kind": "link", "target": "b.txt"}
    {"end": 3}

Both ends of the channel use this module. A reader knows the stream is whole when the last line says how many entries
there were; a file that changed while it was read is marked by its sender in place of the checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, BinaryIO, Callable, Iterator

PIECE = 1 << 20
_MAX_LINE = 1 << 16


class BrokenStream(Exception):
    """The stream ended early, or is not one."""


class ChangedFile(Exception):
    """A file is not what it was said to be: it changed while it was read, or its checksum does not match."""


def safe_path(path: str) -> str:
    """
    Return ``path`` when it names something below a folder.

    :raises ValueError: it is absolute, empty, or climbs out with ``..``.
    """
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r} does not stay inside its folder")
    return path


def link_stays_inside(path: str, target: str) -> bool:
    """Tell whether a link at ``path`` that points to ``target`` stays in the folder both are relative to."""
    if target.startswith("/"):
        return False
    where = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return where != ".." and not where.startswith("../")


def write_line(out: BinaryIO, value: dict[str, Any]) -> None:
    """Write one line of JSON."""
    out.write(json.dumps(value).encode("ascii") + b"\n")


def read_line(stream: BinaryIO) -> dict[str, Any]:
    """
    Read one line of JSON.

    :raises BrokenStream: the stream ended, or holds something else.
    """
    line = stream.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise BrokenStream("the stream of files broke off")
    try:
        value: dict[str, Any] = json.loads(line)
    except ValueError:
        raise BrokenStream(f"the stream of files is garbled at {line[:60]!r}") from None
    return value


def write_file(out: BinaryIO, header: dict[str, Any], source: BinaryIO) -> str | None:
    """
    Send one file of ``header["size"]`` bytes.

    :return: its SHA-256; None when the file was not of that size any more, which the reader is told.
    """
    write_line(out, header)
    digest = hashlib.sha256()
    left = header["size"]
    while left:
        piece = source.read(min(PIECE, left))
        if not piece:
            break
        digest.update(piece)
        out.write(piece)
        left -= len(piece)
    if left or source.read(1):
        for start in range(0, left, PIECE):
            out.write(bytes(min(PIECE, left - start)))
        write_line(out, {"changed": True})
        return None
    write_line(out, {"sha256": digest.hexdigest()})
    return digest.hexdigest()


def read_file(stream: BinaryIO, header: dict[str, Any], write: Callable[[bytes], Any]) -> str:
    """
    Receive the bytes of one file and check them.

    :return: its SHA-256.
    :raises ChangedFile: what arrived is not what was sent; the stream can be read on.
    :raises BrokenStream: the stream ended early.
    """
    digest = hashlib.sha256()
    left = header["size"]
    while left:
        piece = stream.read(min(PIECE, left))
        if not piece:
            raise BrokenStream("the stream of files broke off in {!r}".format(header["path"]))
        digest.update(piece)
        write(piece)
        left -= len(piece)
    end = read_line(stream)
    if end.get("changed"):
        raise ChangedFile("{!r} changed while it was being read".format(header["path"]))
    if end.get("sha256") != digest.hexdigest():
        raise ChangedFile("{!r} did not arrive as it was sent: its SHA-256 differs".format(header["path"]))
    return digest.hexdigest()


def headers(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """
    Yield the header of each entry; the caller reads a file's bytes before it asks for the next.

    :raises BrokenStream: entries are missing.
    """
    count = 0
    while True:
        header = read_line(stream)
        if "end" in header:
            if header["end"] != count:
                raise BrokenStream("{} entries arrived of {}".format(count, header["end"]))
            return
        count += 1
        yield header
