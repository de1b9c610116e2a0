"""A job's inputs on their way to the cluster: what it lacks, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.exceptions import ChecksumError, GpuClusterError, SourceError, StagingError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.gpu_run.protocol.holes import extents
from airflow_provider_gpu_cluster.sources import Source, UploadSource
from airflow_provider_gpu_cluster.sources.source import Entry
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from airflow_provider_gpu_cluster.transfer.streams import lanes_for
from airflow_provider_gpu_cluster.transfer.upload_streams import Lane, UploadLanes

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import PieceHeader, UploadNews, Want
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Fault, StageReply, SubmitReply

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 23
# Nobody knows the SHA-256 of these before they were sent, so each has that of its own bytes, and is in memory for it.
TAGGED_PIECE_BYTES = 1 << 20
_READ_BYTES = 1 << 20

_BREAKS = (*BREAKS, lines.BrokenStream)


@dataclass(frozen=True)
class Line:
    """
    What an upload needs to know of the connection.

    :param name: the cluster for a person.
    :param lane: opens a further channel that takes pieces, over a connection of its own.
    :param round_trip_s: how long the other side takes to answer.
    :param check: called again and again while this side waits for itself; what it raises ends the upload.
    :param error_of: makes an exception of what the cluster says has gone wrong.
    :param pieces_to: makes of a channel what pieces are written to; the channel itself by default.
    """

    name: str
    lane: Lane
    round_trip_s: Callable[[], float]
    check: Callable[[], None]
    error_of: Callable[[Fault], GpuClusterError]
    pieces_to: Callable[[BinaryIO], AbstractContextManager[BinaryIO]] = contextlib.nullcontext


class Upload:
    """
    Sends the contents that the cluster asks for; the conversation is that of :mod:`.gpu_run.staging.receiving`.

    ::

        while (result := ask_cluster(upload.converse)) is None: ...

    :param sources: all inputs of the job.
    """

    def __init__(self, sources: Sequence[Source], line: Line) -> None:
        self._sources = sources
        self._line = line
        self._contents: dict[str, Content] = {}
        self._left = math.inf
        self._is_progress = False
        self.has_begun = False
        """Whether the cluster has asked for anything."""

    def converse(
        self, reply: StageReply | SubmitReply, stream: BinaryIO, out: BinaryIO
    ) -> StageReply | SubmitReply | None:
        """
        Send what the cluster asks for until all is in place.

        :param reply: what it has said first; with ``needs``, the inputs that it needs.
        :return: what came of it; None when the connection broke, after more had arrived than before: another one goes
            on from there.
        :raises SourceError: something cannot be read.
        :raises ChecksumError: a file has changed since its checksum was taken.
        """
        if not reply.get("needs"):
            return reply
        self.has_begun = True
        self._is_progress = False
        needed = [cast(UploadSource, self._sources[index]) for index in reply["needs"]]
        self._contents = {
            entry.content: Content(source, entry) for source in needed for entry in source.manifest if entry.size
        }
        with contextlib.ExitStack() as stack:
            try:
                lines.write_line(out, {"rows": [source.rows for source in needed]})
                return self._converse(stream, out, stack)
            except _BREAKS:
                # It may have said why it hung up.
                with contextlib.suppress(*_BREAKS):
                    while True:
                        self._next(stream)
                if self._is_progress:
                    return None
                raise

    def _converse(self, stream: BinaryIO, out: BinaryIO, stack: contextlib.ExitStack) -> StageReply | SubmitReply:
        progress: TransferProgress | None = None
        wants: list[Want] = []
        # For now, as many as are of use if it lacks everything.
        size = sum(content.entry.size for content in self._contents.values())
        lanes: UploadLanes | None = stack.enter_context(self._lanes(size))
        while "done" not in (message := self._next(stream)):
            wants += message.get("want", ())
            if "send" not in message:
                continue
            if progress is None:
                self._is_progress = message["send"] < self._left
                self._left = message["send"]
                progress = stack.enter_context(TransferProgress(f"upload to {self._line.name}", message["send"]))
            self._send(wants, out, progress, lanes or stack.enter_context(self._lanes(message["send"])))
            wants, lanes = [], None
        return message["done"]

    def _lanes(self, size: int) -> UploadLanes:
        return UploadLanes(lanes_for(self._line.round_trip_s(), size) - 1, self._line.lane)

    def _next(self, stream: BinaryIO) -> UploadNews:
        """Return what the cluster says next; an error is raised."""
        while True:
            line = stream.readline()
            if not line.endswith(b"\n"):
                raise lines.BrokenStream("the connection broke while files were sent")
            if line != b"\n":
                break
        message: UploadNews = json.loads(line)
        if "error" in message:
            raise self._line.error_of(message["error"])
        return message

    def _send(self, wants: list[Want], out: BinaryIO, progress: TransferProgress, lanes: UploadLanes) -> None:
        pieces = deque(self._pieces(wants))

        def send_all(out: BinaryIO) -> PieceSender:
            sender = PieceSender(self._contents, out, progress)
            sender.send_all(pieces)
            return sender

        lanes.use(lambda out: send_all(out).end())
        try:
            with self._line.pieces_to(out) as pieces_out:
                sender = send_all(pieces_out)
                lanes.finish(self._line.check)
                # What a lane has taken on and not sent is asked for again.
                sender.end()
        finally:
            # Lanes that go on have nothing left to do.
            pieces.clear()

    def _pieces(self, wants: list[Want]) -> Iterator[Piece]:
        for key, ranges in wants:
            content = self._contents.get(key)
            if content is None:
                raise GpuClusterError(f"{self._line.name} asks for a content that it was not offered: {key!r}")
            most = TAGGED_PIECE_BYTES if content.is_tagged else PIECE_BYTES
            for start, end in ranges:
                for at in range(start, end, most):
                    yield Piece(key, at, min(end, at + most))


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a content."""

    key: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Content:
    """A content, and one of the files that have it."""

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
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._open: _OpenContent | None = None

    def send_all(self, pieces: deque[Piece]) -> None:
        """Send pieces until none is left for anybody."""
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
                self._line({**header, "zeros": True})
            elif self._open.content.is_tagged:
                data = b"".join(self._open.read(start, end))
                self._line({**header, "sha256": hashlib.sha256(data).hexdigest()})
                self._bytes(data)
            else:
                self._line(header)
                for data in self._open.read(start, end):
                    self._bytes(data)
            self._progress.advance(end - start)

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _line(self, header: PieceHeader) -> None:
        self._bytes(json.dumps(header).encode("ascii") + b"\n")

    def _bytes(self, data: bytes) -> None:
        """Send bytes, small ones together with what comes next."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _READ_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._out.write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


class _OpenContent:
    """A content that is being read. Whatever goes wrong with it is an error of the source, not of the connection."""

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
        """Yield the parts of a range, and of each whether it holds data. What is small has no holes."""
        if self.content.entry.size > protocol.WHOLE_BYTES and self.content.entry.is_local:
            with self._explained():
                yield from extents(self._stream.fileno(), start, end)
        else:
            yield start, end, True

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """
        Yield the bytes of a range.

        :raises ChecksumError: there are not as many as there were.
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
