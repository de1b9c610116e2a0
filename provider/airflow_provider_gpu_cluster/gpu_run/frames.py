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
there were; what a sender could not read to its end is marked in place of the checksum.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, BinaryIO, Callable, Iterator

PIECE = 1 << 20
_MAX_LINE = 1 << 16


class BrokenStream(Exception):
    """The stream ended early."""


class GarbledStream(Exception):
    """The stream holds what no sender writes."""


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


def write_line(out: BinaryIO, value: dict[str, Any]) -> None:
    """Write one line of JSON."""
    out.write(json.dumps(value).encode("ascii") + b"\n")


def read_line(stream: BinaryIO) -> dict[str, Any]:
    """
    Read one line of JSON.

    :raises BrokenStream: the stream ended.
    :raises GarbledStream: it holds something else.
    """
    line = stream.readline(_MAX_LINE)
    if not line.endswith(b"\n") and len(line) < _MAX_LINE:
        raise BrokenStream("the stream of files broke off")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _garbled(line)
    return value


def _garbled(what: object) -> GarbledStream:
    return GarbledStream(f"the stream of files is garbled at {repr(what)[:60]}")


def write_file(
    out: BinaryIO, header: dict[str, Any], source: BinaryIO, unchanged: Callable[[], bool] = lambda: True
) -> str | None:
    """
    Send one file of ``header["size"]`` bytes.

    :param unchanged: asked at the end whether the file is still what it was at the beginning.
    :return: its SHA-256; None when it could not be sent as it was, which the reader is told.
    """
    write_line(out, header)
    digest = hashlib.sha256()
    left = header["size"]
    try:
        while left:
            piece = _read(source, min(PIECE, left))
            if not piece:
                raise ChangedFile("changed while it was being read")
            digest.update(piece)
            out.write(piece)
            left -= len(piece)
        if _read(source, 1) or not unchanged():
            raise ChangedFile("changed while it was being read")
    except ChangedFile as fault:
        # The reader expects that many bytes; then it is told not to keep them.
        for start in range(0, left, PIECE):
            out.write(bytes(min(PIECE, left - start)))
        write_line(out, {"fault": str(fault)})
        return None
    write_line(out, {"sha256": digest.hexdigest()})
    return digest.hexdigest()


def _read(source: BinaryIO, size: int) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise ChangedFile(f"could not be read: {error.strerror or error}") from error


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
    if "fault" in end:
        raise ChangedFile("{!r} {}".format(header["path"], end["fault"]))
    if end.get("sha256") != digest.hexdigest():
        raise ChangedFile("{!r} did not arrive as it was sent: its SHA-256 differs".format(header["path"]))
    return digest.hexdigest()


def headers(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """
    Yield the header of each entry; the caller reads a file's bytes before it asks for the next.

    :raises BrokenStream: the stream ended early.
    :raises GarbledStream: it holds what no sender writes, or entries are missing.
    """
    count = 0
    while True:
        header = read_line(stream)
        if "end" in header:
            if header["end"] != count:
                raise GarbledStream("{} entries arrived of {}".format(count, header["end"]))
            return
        if not _is_header(header):
            raise _garbled(header)
        count += 1
        yield header


def _is_header(value: dict[str, Any]) -> bool:
    if not isinstance(value.get("path"), str):
        return False
    if value.get("kind") == "link":
        return isinstance(value.get("target"), str)
    if value.get("kind") == "file":
        size = value.get("size")
        return isinstance(size, int) and size >= 0 and isinstance(value.get("mode"), int)
    return isinstance(value.get("kind"), str)
