"""Pieces of a job's inputs, sent over one channel."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_gpu_cluster.exceptions import ChecksumError, SourceError, StagingError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.holes import extents
from airflow_provider_gpu_cluster.sources import UploadSource
from airflow_provider_gpu_cluster.sources.source import Entry
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import PieceHeader

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a file's content."""

    key: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Content:
    """A content, and one of the files with that content."""

    source: UploadSource
    entry: Entry

    @property
    def is_tagged(self) -> bool:
        """Whether its SHA-256 is not known."""
        return self.entry.content.startswith("tag-")

    def __str__(self) -> str:
        return f"{self.source.kind} {self.source.written}: {self.entry.path!r}"


class PieceSender:
    """Sends pieces over one channel."""

    def __init__(self, contents: Mapping[str, Content], out: BinaryIO, progress: TransferProgress) -> None:
        self._contents = contents
        self._out = out
        self._progress = progress
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._open: _OpenContent | None = None

    def send_all(self, pieces: deque[Piece]) -> None:
        """Send pieces until none is left in the shared queue."""
        try:
            while True:
                try:
                    piece = pieces.popleft()
                except IndexError:
                    return
                self._send(piece)
        finally:
            self._close()

    def end(self) -> None:
        """Say that nothing more comes."""
        self._bytes(b'{"end": true}\n')
        self._flush()
        self._out.flush()

    def _send(self, piece: Piece) -> None:
        if self._open is None or self._open.key != piece.key:
            self._close()
            self._open = _OpenContent(self._contents[piece.key], piece.key)
        for start, end, is_data in self._open.parts(piece.start, piece.end):
            header: PieceHeader = {"key": piece.key, "at": start, "n": end - start}
            if self._open.content.entry.size <= protocol.WHOLE_BYTES:
                header["whole"] = True
            if not is_data:
                self._say({**header, "zeros": True})
            elif self._open.content.is_tagged:
                data = b"".join(self._open.read(start, end))
                self._say({**header, "sha256": hashlib.sha256(data).hexdigest()})
                self._bytes(data)
            else:
                self._say(header)
                for data in self._open.read(start, end):
                    self._bytes(data)
            self._progress.advance(end - start)

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _say(self, header: PieceHeader) -> None:
        self._bytes(json.dumps(header).encode("ascii") + b"\n")

    def _bytes(self, data: bytes | memoryview) -> None:
        """Send bytes; buffer small ones and send them together with the next."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _READ_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._out.write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


class _OpenContent:
    """A content that is being read. Errors in reading it are errors of the source, not of the connection."""

    def __init__(self, content: Content, key: str) -> None:
        self.content = content
        self.key = key
        self._at = 0
        with self._explained():
            self._stream = content.entry.open()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """The libraries of object stores raise errors of every kind."""
        try:
            yield
        except StagingError:
            raise
        except Exception as error:
            raise SourceError(f"{self.content} cannot be read: {error}") from error

    def close(self) -> None:
        """Read it no more."""
        with contextlib.suppress(Exception):
            self._stream.close()

    def parts(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the parts of a range, each with whether it holds data. Small files count as having no holes."""
        if self.content.entry.size > protocol.WHOLE_BYTES and self.content.entry.is_local:
            with self._explained():
                yield from extents(self._stream.fileno(), start, end)
        else:
            yield start, end, True

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """
        Yield the bytes of a range.

        :raises ChecksumError: the file has become shorter.
        """
        with self._explained():
            if start != self._at or self.content.entry.is_local:
                self._stream.seek(start)
        self._at = start
        while self._at < end:
            with self._explained():
                data = self._stream.read(min(_READ_BYTES, end - self._at))
            if not data:
                raise ChecksumError(
                    f"{self.content} changed while it was being sent; nothing of it was kept, try again"
                )
            self._at += len(data)
            yield data
