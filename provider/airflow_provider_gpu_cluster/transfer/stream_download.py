"""Downloads a job's outputs through the channels of commands, over one or more connections."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterError, GpuClusterProtocolError
from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.files.partial_file import PartialFile
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.gpu_run.protocol.files import PIECE
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.transfer.download import Download
from airflow_provider_gpu_cluster.transfer.download_streams import PIECE_BYTES, FilePiece
from airflow_provider_gpu_cluster.transfer.file_stream import (
    garbled,
    is_count,
    is_header,
    read_batch,
    read_line,
    take_part,
)
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from airflow_provider_gpu_cluster.transfer.small_files import SmallFile, SmallFiles

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import FilesRequest, OutputEntry

_CHECK_EVERY_S = 0.2
# What the first connection transfers over a long round trip while the others are being opened.
_HEAD_START_BYTES = 24 << 20


class StreamDownload(Download):
    """
    The files of one job to collect.

    Each connection asks for what is left, by :meth:`request`, and takes what arrives, by :meth:`receive`::

        while download.left:
            lines.write_line(out, download.request())
            download.receive(stream, progress)
    """

    def __init__(self, job_id: str, entries: list[OutputEntry], sink: Sink, checksums: Checksums) -> None:
        super().__init__(job_id, entries, sink, checksums)
        self.pieces: list[FilePiece] = []
        """The pieces that the last request left out, because other connections fetch them."""
        self._pieces_of: dict[str, list[FilePiece]] = {}
        self._head_start = 0
        self._asked: list[str] = []
        self._offsets: list[int] = []
        self._waiting: set[int] = set()
        self._buffer = memoryview(bytearray(PIECE))

    def request(self, streams: int = 1) -> FilesRequest:
        """
        Return the request to the cluster: every file that is left, from the first byte that is missing.

        :param streams: number of connections; of large files, the request covers only the first connection's part, and
            the rest becomes :attr:`pieces`.
        """
        self._asked = sorted(self.left)
        self._offsets = [self._arrived(self.left[path]) for path in self._asked]
        self.pieces, self._pieces_of = [], {}
        self._head_start = min(_HEAD_START_BYTES, self.missing_bytes() // streams)
        rows = [self._row(path, offset, streams) for path, offset in zip(self._asked, self._offsets, strict=True)]
        return {"files": rows}

    def _row(self, path: str, offset: int, streams: int) -> list[Any]:
        size, stamp = self.left[path]["size"], self.left[path].get("stamp")
        # Pieces begin at fixed places, so that the next try finds them.
        first = math.ceil((offset + (size - offset) / streams + self._head_start) / PIECE_BYTES)
        if streams == 1 or stamp is None or path in self._busy or first * PIECE_BYTES >= size:
            return [path, offset, stamp]
        pieces = []
        for start in range(first * PIECE_BYTES, size, PIECE_BYTES):
            here = self._sink.arrived(path, self._key(path), stamp, start // PIECE_BYTES)
            end = min(size, start + PIECE_BYTES)
            pieces.append(FilePiece(path, stamp, start, end, min(here, end - start)))
        self._head_start = 0
        self._pieces_of[path] = pieces
        self.pieces += pieces
        return [path, offset, stamp, first * PIECE_BYTES]

    def receive_piece(self, piece: FilePiece, stream: BinaryIO, progress: TransferProgress) -> None:
        """
        Take a piece that was requested separately. Called by other threads.

        :raises CollectError: the file has changed.
        :raises GpuClusterConnectionError: the stream broke off.
        """
        with self._stream_errors():
            self._take_file_piece(piece, stream, progress)
            if read_line(stream).get("end") != 1:
                raise garbled(piece.path)

    def _take_file_piece(self, piece: FilePiece, stream: BinaryIO, progress: TransferProgress) -> None:
        header = read_line(stream)
        if "fault" in header:
            raise self._fault(piece.path, header["fault"])
        if not is_header(header) or [header["file"], header["at"], header["until"]] != [0, *piece.row[1:4:2]]:
            raise garbled(header)
        size = piece.end - piece.start
        buffer = memoryview(bytearray(PIECE))
        partial = self._partial(piece.path, piece.stamp, piece.start // PIECE_BYTES)
        try:
            if partial.size < piece.here:
                raise lines.BrokenStream(f"{piece.path!r} is being collected by somebody else as well")
            progress.advance(piece.here)
            partial.start_at(piece.here)
            while "sha256" not in (line := read_line(stream)):
                self._take_part(line, partial, size - partial.size, stream, buffer, progress)
            if not partial.is_whole(size, line["sha256"]):
                partial.discard()
                raise self._damaged(piece.path)
            piece.arrived.set_result(partial)
        except BaseException:
            partial.close()
            raise

    def _append_pieces(self, partial: PartialFile, path: str) -> None:
        """Append the pieces from other connections, as soon as they arrive."""
        for piece in self._pieces_of.get(path, ()):
            try:
                while not wait([piece.arrived], _CHECK_EVERY_S).done:
                    self._check()
                partial.append(piece.arrived.result())
            except (CollectError, GpuClusterProtocolError):
                raise
            except (GpuClusterError, *BREAKS) as error:
                raise lines.BrokenStream(f"a part of {path!r} did not come: {error}") from error

    def close_pieces(self) -> None:
        """Close unused pieces from other connections; they stay for the next try."""
        for piece in self.pieces:
            if piece.arrived.done() and piece.arrived.exception() is None:
                piece.arrived.result().close()

    def receive(self, stream: BinaryIO, progress: TransferProgress, check: Callable[[], None] = lambda: None) -> None:
        """
        Take the files that the verb ``send`` streams.

        :param check: called repeatedly while this waits for pieces; an exception from it ends the wait.
        :raises CollectError: a file was damaged, or has changed since it was listed.
        :raises GpuClusterConnectionError: the stream broke off; what has arrived is kept.
        """
        self._check = check
        self._waiting = set(range(len(self._asked)))
        with self._stream_errors(), SmallFiles(self._sink, self._publish_small, self._damaged) as small:
            while "end" not in (line := read_line(stream)):
                if "small" in line:
                    self._take_small(line["small"], stream, small, progress)
                else:
                    self._take_file(line, stream, progress)
        if self._waiting:
            missing = [self._asked[number] for number in sorted(self._waiting)[:5]]
            raise CollectError(f"job {self.job_id}: the cluster did not send {missing}, which it has listed")

    def _take_small(self, rows: Any, stream: BinaryIO, small: SmallFiles, progress: TransferProgress) -> None:
        """Take a batch of small files."""
        files = read_batch(rows, stream)
        small.give([SmallFile(self._path(number), content, mode, sha256) for number, mode, sha256, content in files])
        self._count(sum(len(content) for *_, content in files), progress)

    def _take_file(self, header: dict[str, Any], stream: BinaryIO, progress: TransferProgress) -> None:
        """Take a file that arrives in parts."""
        number = header.get("file")
        if not is_count(number):
            raise garbled(header)
        path, asked_from = self._path(number), self._offsets[number]
        if "fault" in header:
            raise self._fault(path, header["fault"])
        if not is_header(header):
            raise garbled(header)
        offset, size, stamp, end = header["at"], header["size"], header["stamp"], header["until"]
        if offset and (offset, stamp) != (asked_from, self.left[path].get("stamp")):
            raise garbled(header)
        with self._partial(path, stamp) as partial:
            if partial.size < offset:
                # Another process is collecting the same file, and holds its partial file.
                self._busy.add(path)
                raise lines.BrokenStream(f"{path!r} has to be asked for anew")
            progress.advance(offset - asked_from)
            partial.start_at(offset)
            while "sha256" not in (line := read_line(stream)):
                self._take_part(line, partial, end - partial.size, stream, self._buffer, progress)
            if end < size:
                self._append_pieces(partial, path)
            sha256 = line["sha256"]
            if not partial.is_whole(size, sha256):
                # The next try starts from the beginning.
                partial.discard()
                raise self._damaged(path)
            self._sink.publish(partial, path, header["mode"])
            with self._lock:
                self._sink.forget_partial(path, self._key(path))
            self._publish(path, size, sha256)

    def _take_part(
        self,
        line: dict[str, Any],
        partial: PartialFile,
        left: int,
        stream: BinaryIO,
        buffer: memoryview,
        progress: TransferProgress,
    ) -> None:
        if "fault" in line:
            partial.discard()
            raise self._fault(partial.name, line["fault"])
        take_part(line, partial, left, stream, buffer, lambda nbytes: self._count(nbytes, progress))

    def _path(self, number: int) -> str:
        """Return the path requested under a number, which has not arrived yet."""
        if number not in self._waiting:
            raise garbled(number)
        self._waiting.remove(number)
        return self._asked[number]

    def _publish_small(self, file: SmallFile) -> None:
        self._publish(file.path, len(file.content), file.sha256)
