"""
Send a job's outputs as a stream, each file from the byte up to which the reader has it.

After its request, the reader sends lines that ask for something, one after the other::

    {"checksums_of": ["a.bin", "b.bin"]}      answered by {"sha256": ["...", null]}, null if there is none
    {"files": [["a.bin", 0, null]]}           answered by a stream of files
    {"collected": 1000000}                    the last one: how many bytes have arrived, by whichever way

This names files as ``[path, offset, stamp]``, ``[path, offset, stamp, end]`` for a part that ends at ``end``, or
``[path, offset, stamp, end, start]`` for a part that begins at ``start``. In the answer a file is a number, its place
in that list, and comes as::

    {"small": [[0, 3, 420, "<sha256>"], [1, 0, 493, "<sha256>"]]}      number, size, mode, checksum of each
    <3 bytes>
    {"file": 2, "size": 6000000, "mode": 420, "stamp": "...", "at": 1000000, "until": 6000000}
    {}
    {"data": 1048576}
    <1048576 bytes>
    {"zeros": 3951424}
    {"sha256": "..."}
    {"file": 3, "fault": "changed while it was being collected"}
    {"end": 4}

A file that is not small is sent from its offset if its stamp is unchanged, and from its beginning otherwise. Its
checksum covers the whole file, or the whole part, including bytes that were not sent. A ``fault`` instead of it says
that the file cannot be used.
``zeros`` stand for a hole, and ``{}`` is a sign of life.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Iterator, NamedTuple

from ..protocol import lines
from ..protocol.files import CHANGED, MAX_BATCH_FILES, MAX_ZEROS, PIECE, SMALL
from ..protocol.holes import extents, update_with_zeros
from .folder import Outputs, Unsendable, mode_of, stamp_of

if TYPE_CHECKING:
    from ..protocol.outputs import ChecksumsRequest, CollectedNote, FileHeader, FilesRequest
    from ..store.booking import Transfer

SIGN_OF_LIFE_S = 5.0


def _uncounted(count: int) -> None:
    pass


def answer(folder: Outputs, stream: BinaryIO, out: BinaryIO, transfer: Transfer | None = None) -> None:
    """
    Send the reader what it asks for, until it asks for nothing more.

    :param transfer: is told how much that is, and booked at the end; None where another connection is.
    """
    sent = _uncounted if transfer is None else transfer.add
    try:
        for line in iter(stream.readline, b""):
            if not line.endswith(b"\n"):
                # The connection broke.
                return
            wanted: FilesRequest | ChecksumsRequest | CollectedNote = json.loads(line)
            if "files" in wanted:
                send_outputs(folder, wanted["files"], out, sent)
            elif "collected" in wanted:
                if transfer is not None:
                    transfer.bytes = max(transfer.bytes, int(wanted["collected"]))
            else:
                lines.write_line(out, {"sha256": checksums_of(folder, wanted["checksums_of"], out)})
            out.flush()
    finally:
        if transfer is not None:
            transfer.book()


def send_outputs(
    folder: Outputs, files: list[list[Any]], out: BinaryIO, sent: Callable[[int], None] = _uncounted
) -> None:
    """
    Send files that were listed before.

    :param files: for each its path, the byte to start from, the stamp that it had then, and which part of it.
    :param sent: is called with a number of bytes that were sent, holes included.
    """
    batch = _SmallFiles(out, sent)
    for number, (name, offset, stamp, *part) in enumerate(files):
        try:
            fd, found = folder.open(name)
            try:
                if found.st_size < SMALL:
                    batch.add(number, _read_small(fd, found), found)
                else:
                    batch.flush()
                    _send_large(out, number, fd, found, _part(found, offset, stamp, *part), sent)
            finally:
                os.close(fd)
        except Unsendable as fault:
            batch.flush()
            lines.write_line(out, {"file": number, "fault": str(fault)})
    batch.flush()
    lines.write_line(out, {"end": len(files)})


def checksums_of(folder: Outputs, names: list[str], out: BinaryIO) -> list[str | None]:
    """
    Return the SHA-256 of files that were listed before; None for a file that cannot be read.

    :param out: for signs of life.
    """
    pulse = _Pulse(out)
    return [_checksum_of(folder, name, pulse) for name in names]


def _checksum_of(folder: Outputs, name: str, pulse: _Pulse) -> str | None:
    digest = hashlib.sha256()
    try:
        fd, found = folder.open(name)
        try:
            _hash(pulse, fd, digest, 0, found.st_size)
            _check_unchanged(fd, found)
        finally:
            os.close(fd)
    except Unsendable:
        return None
    return digest.hexdigest()


class _SmallFiles:
    """Small files that are sent together."""

    def __init__(self, out: BinaryIO, sent: Callable[[int], None]) -> None:
        self._out = out
        self._sent = sent
        self._rows: list[list[Any]] = []
        self._contents: list[bytes] = []
        self._bytes = 0

    def add(self, number: int, content: bytes, found: os.stat_result) -> None:
        """Add a file, and send the collected files if there are enough."""
        self._rows.append([number, len(content), mode_of(found), hashlib.sha256(content).hexdigest()])
        self._contents.append(content)
        self._bytes += len(content)
        if self._bytes >= SMALL or len(self._rows) >= MAX_BATCH_FILES:
            self.flush()

    def flush(self) -> None:
        """Send the collected files."""
        if self._rows:
            lines.write_line(self._out, {"small": self._rows})
            self._out.write(b"".join(self._contents))
            self._sent(self._bytes)
            self._rows, self._contents, self._bytes = [], [], 0


def _read_small(fd: int, found: os.stat_result) -> bytes:
    content = _read(fd, found.st_size + 1, 0)
    while 0 < len(content) < found.st_size and (more := _read(fd, found.st_size + 1 - len(content), len(content))):
        content += more
    if len(content) != found.st_size:
        raise Unsendable(CHANGED)
    _check_unchanged(fd, found)
    return content


class _Part(NamedTuple):
    """
    What to send of a large file: from ``at`` to ``end``.

    :param start: where the checksum begins.
    :param stop: where the checksum ends.
    """

    at: int
    end: int
    start: int
    stop: int


def _part(
    found: os.stat_result, offset: int, stamp: str | None, end: int | None = None, start: int | None = None
) -> _Part:
    size = found.st_size
    if stamp != stamp_of(found):
        if start is not None:
            raise Unsendable(CHANGED)
        return _Part(0, size, 0, size)
    end = size if end is None else end
    if not (start or 0) <= offset <= end <= size:
        raise Unsendable(CHANGED)
    return _Part(offset, end, 0, size) if start is None else _Part(offset, end, start, end)


def _send_large(
    out: BinaryIO, number: int, fd: int, found: os.stat_result, part: _Part, sent: Callable[[int], None]
) -> None:
    header: FileHeader = {
        "file": number,
        "size": found.st_size,
        "mode": mode_of(found),
        "stamp": stamp_of(found),
        "at": part.at,
        "until": part.end,
    }
    lines.write_line(out, header)
    # Let the other side begin its part of the checksum, too.
    out.flush()
    digest = hashlib.sha256()
    try:
        pulse = _Pulse(out)
        _hash(pulse, fd, digest, part.start, part.at)
        for piece in _pieces(fd, part.at, part.end):
            if isinstance(piece, int):
                out.write(b'{"zeros": %d}\n' % piece)
                out.flush()
            else:
                out.write(b'{"data": %d}\n' % len(piece))
                out.write(piece)
            sent(piece if isinstance(piece, int) else len(piece))
            _update(digest, piece)
        if part.end < part.stop:
            out.flush()
        _hash(pulse, fd, digest, part.end, part.stop)
        _check_unchanged(fd, found)
    except Unsendable as fault:
        lines.write_line(out, {"fault": str(fault)})
        return
    lines.write_line(out, {"sha256": digest.hexdigest()})


class _Pulse:
    """Sends signs of life while nothing else is sent."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._told_at = time.monotonic()

    def beat(self) -> None:
        """Send a sign of life if it is time."""
        if time.monotonic() - self._told_at > SIGN_OF_LIFE_S:
            self._told_at = time.monotonic()
            self._out.write(b"{}\n")
            self._out.flush()


def _hash(pulse: _Pulse, fd: int, digest: Any, at: int, end: int) -> None:
    """Add bytes that are not sent to a checksum."""
    for piece in _pieces(fd, at, end):
        _update(digest, piece)
        pulse.beat()


def _check_unchanged(fd: int, found: os.stat_result) -> None:
    # The time of change may differ: the file may have been replaced, and is read on as it was.
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise Unsendable(CHANGED)


def _pieces(fd: int, at: int, size: int) -> Iterator[bytes | int]:
    """Yield the contents of a file between two offsets: bytes, or the number of zeros in a hole."""
    for start, end, is_data in extents(fd, at, size):
        at = start
        while at < end:
            piece = _read(fd, min(PIECE, end - at), at) if is_data else min(MAX_ZEROS, end - at)
            if not piece:
                raise Unsendable(CHANGED)
            yield piece
            at += piece if isinstance(piece, int) else len(piece)


def _read(fd: int, size: int, at: int) -> bytes:
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        raise Unsendable(f"could not be read: {error.strerror or error}") from error


def _update(digest: Any, piece: bytes | int) -> None:
    if isinstance(piece, int):
        update_with_zeros(digest, piece)
    else:
        digest.update(piece)
