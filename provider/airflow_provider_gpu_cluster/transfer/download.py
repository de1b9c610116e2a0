"""A job's outputs on their way home, over as many connections as it takes, each file checked on arrival."""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard, cast

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.session import IF_DAMAGED_AGAIN
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.files.checksums import Checksums
from airflow_provider_gpu_cluster.files.partial_file import PartialFile
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.gpu_run.protocol.files import MAX_BATCH_BYTES, MAX_BATCH_FILES, MAX_ZEROS, PIECE
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.transfer.download_streams import PIECE_BYTES, FilePiece
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from airflow_provider_gpu_cluster.transfer.small_files import SmallFile, SmallFiles

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import (
        ChecksumsRequest,
        FileHeader,
        FilesRequest,
        OutputEntry,
    )

_CHECK_EVERY_S = 0.2
# What the first connection brings over a long line while the others are being opened.
_HEAD_START_BYTES = 24 << 20
_LINE_BYTES = 1 << 16
# What one takes in a list, in JSON.
_CHECKSUM_BYTES = 68


@dataclass(frozen=True)
class CollectedFile:
    """
    A file that was brought home.

    :param path: relative to the job's outputs, and to the destination.
    :param size: in bytes.
    :param sha256: checksum of its content, in hex; the same on both sides.
    """

    path: str
    size: int
    sha256: str


class Download:
    """
    The files of one job that are to be brought home.

    Each connection asks for what is left, by :meth:`request`, and takes what comes, by :meth:`receive`::

        while download.left:
            frames.write_line(out, download.request())
            download.receive(stream, progress)

    :param entries: the files, as the cluster has listed them. It is not trusted: nothing else is taken from it.
    :raises CollectError: that is no list of files.
    """

    def __init__(self, job_id: str, entries: list[OutputEntry], sink: Sink, checksums: Checksums) -> None:
        if not all(map(_is_entry, entries)):
            raise CollectError(f"job {job_id}: the cluster's list of outputs is garbled")
        self.job_id = job_id
        self.left: dict[str, OutputEntry] = {entry["path"]: entry for entry in entries}
        self.collected: list[CollectedFile] = []
        self.received = 0
        """Bytes that came so far, holes included."""
        self._sink = sink
        self._checksums = checksums
        self.pieces: list[FilePiece] = []
        """What was not asked for by the last request, since it is to come beside it."""
        self.lanes = 1
        """Over how many connections what was asked for comes."""
        self._pieces_of: dict[str, list[FilePiece]] = {}
        self._head_start = 0
        self._lock = threading.Lock()
        self._asked: list[str] = []
        self._offsets: list[int] = []
        self._waiting: set[int] = set()
        self._busy: set[str] = set()
        self._buffer = memoryview(bytearray(PIECE))

    def skip_present(self, stream: BinaryIO, out: BinaryIO) -> None:
        """Leave out what is there already, and the same on the cluster, which is asked for the checksums."""
        present = self.present()
        if not present:
            return
        request: ChecksumsRequest = {"checksums_of": present}
        lines.write_line(out, request)
        self.skip_unchanged(dict(zip(present, self._read_checksums(len(present), stream), strict=True)))

    def _read_checksums(self, count: int, stream: BinaryIO) -> list[str | None]:
        with self._stream_errors():
            sha256 = _read_line(stream, _LINE_BYTES + count * _CHECKSUM_BYTES).get("sha256")
        if not isinstance(sha256, list) or len(sha256) != count:
            raise CollectError(f"job {self.job_id}: the cluster's checksums are garbled")
        return [None if one is None else str(one) for one in sha256]

    def present(self) -> list[str]:
        """Return the paths at which there is a file already that may be the same."""
        sizes = {path: (entry["size"], entry["mode"]) for path, entry in self.left.items()}
        return self._sink.present(sizes, self._checksums)

    def skip_unchanged(self, sha256: Mapping[str, str | None]) -> None:
        """
        Leave out what is there already.

        :param sha256: what the cluster says of paths that are present.
        """
        for path, there in sha256.items():
            if there is not None and self._sink.sha256_of(path, self._checksums) == there:
                self._done(path, self.left[path]["size"], there)

    def missing_bytes(self) -> int:
        """Return how many bytes have to come, holes included."""
        return sum(entry["size"] - self._arrived(entry) for entry in self.left.values())

    def check_space(self) -> None:
        """
        Look whether what is left fits.

        :raises NoSpaceError: it does not.
        """
        needed = (entry.get("needs", entry["size"]) - self._arrived(entry) for entry in self.left.values())
        self._sink.check_space(max(0, size) for size in needed)

    def request(self, lanes: int = 1) -> FilesRequest | ChecksumsRequest:
        """
        Return what to ask the cluster for: every file that is left, from where it is here already.

        :param lanes: over how many connections they come; of large files only one part in so many is asked for, and the
            rest becomes :attr:`pieces`.
        """
        self.lanes = lanes
        self._asked = sorted(self.left)
        self._offsets = [self._arrived(self.left[path]) for path in self._asked]
        self.pieces, self._pieces_of = [], {}
        self._head_start = min(_HEAD_START_BYTES, self.missing_bytes() // lanes)
        rows = [self._row(path, offset, lanes) for path, offset in zip(self._asked, self._offsets, strict=True)]
        return {"files": rows}

    def _row(self, path: str, offset: int, lanes: int) -> list[Any]:
        size, stamp = self.left[path]["size"], self.left[path].get("stamp")
        # Pieces begin at fixed places, so that the next try finds them.
        first = math.ceil((offset + (size - offset) / lanes + self._head_start) / PIECE_BYTES)
        if lanes == 1 or stamp is None or path in self._busy or first * PIECE_BYTES >= size:
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
        Take a piece that was asked for by itself. Called by other threads.

        :raises CollectError: it has changed.
        :raises GpuClusterConnectionError: the stream broke off.
        """
        with self._stream_errors():
            self._take_file_piece(piece, stream, progress)
            if _read_line(stream).get("end") != 1:
                raise _garbled(piece.path)

    @contextlib.contextmanager
    def _stream_errors(self) -> Iterator[None]:
        try:
            yield
        except lines.GarbledStream as error:
            raise CollectError(f"job {self.job_id}: {error}") from error
        except lines.BrokenStream as error:
            raise GpuClusterConnectionError(f"job {self.job_id}: {error}") from error

    def _take_file_piece(self, piece: FilePiece, stream: BinaryIO, progress: TransferProgress) -> None:
        header = _read_line(stream)
        if "fault" in header:
            raise self._fault(piece.path, header["fault"])
        if not _is_header(header) or [header["file"], header["at"], header["until"]] != [0, *piece.row[1:4:2]]:
            raise _garbled(header)
        size = piece.end - piece.start
        buffer = memoryview(bytearray(PIECE))
        partial = self._partial(piece.path, piece.stamp, piece.start // PIECE_BYTES)
        try:
            if partial.size < piece.here:
                raise lines.BrokenStream(f"{piece.path!r} is being collected by somebody else as well")
            progress.advance(piece.here)
            partial.start_at(piece.here)
            while "sha256" not in (line := _read_line(stream)):
                self._take_piece(line, partial, size - partial.size, stream, buffer, progress)
            if not partial.is_whole(size, line["sha256"]):
                partial.discard()
                raise self._damaged(piece.path)
            piece.arrived.set_result(partial)
        except BaseException:
            partial.close()
            raise

    def _append_pieces(self, partial: PartialFile, path: str) -> None:
        """Add what came beside the stream, as soon as it is there."""
        for piece in self._pieces_of.get(path, ()):
            try:
                while not wait([piece.arrived], _CHECK_EVERY_S).done:
                    self._check()
                partial.append(piece.arrived.result())
            except CollectError:
                raise
            except (GpuClusterError, *BREAKS) as error:
                raise lines.BrokenStream(f"a part of {path!r} did not come: {error}") from error

    def close_pieces(self) -> None:
        """Close what came beside the stream and was not used; it stays for the next try."""
        for piece in self.pieces:
            if piece.arrived.done() and piece.arrived.exception() is None:
                piece.arrived.result().close()

    def _partial(self, path: str, stamp: str, part: int = 0) -> PartialFile:
        with self._lock:
            return self._sink.partial(path, self._key(path), stamp, part)

    def receive(self, stream: BinaryIO, progress: TransferProgress, check: Callable[[], None] = lambda: None) -> None:
        """
        Take the files that the verb ``send`` streams.

        :param check: called again and again while this waits for pieces; what it raises ends that.
        :raises CollectError: a file changed, was damaged, or is not what it was when it was listed.
        :raises GpuClusterConnectionError: the stream broke off; what came until then is kept.
        """
        self._check = check
        self._waiting = set(range(len(self._asked)))
        with self._stream_errors(), SmallFiles(self._sink, self._publish_small, self._damaged) as small:
            while "end" not in (line := _read_line(stream)):
                if "small" in line:
                    self._take_small(line["small"], stream, small, progress)
                else:
                    self._take_file(line, stream, progress)
        if self._waiting:
            missing = [self._asked[number] for number in sorted(self._waiting)[:5]]
            raise CollectError(f"job {self.job_id}: the cluster did not send {missing}, which it has listed")

    def _take_small(self, rows: Any, stream: BinaryIO, small: SmallFiles, progress: TransferProgress) -> None:
        """Take files that came together."""
        if not isinstance(rows, list) or len(rows) > MAX_BATCH_FILES or not all(map(_is_row, rows)):
            raise _garbled(rows)
        total = sum(row[1] for row in rows)
        if total > MAX_BATCH_BYTES:
            raise _garbled(rows)
        content = memoryview(bytearray(total))
        _fill(content, stream)
        files = []
        for number, size, mode, sha256 in rows:
            files.append(SmallFile(self._path(number), content[:size], mode, sha256))
            content = content[size:]
        small.give(files)
        self._count(total, progress)

    def _take_file(self, header: dict[str, Any], stream: BinaryIO, progress: TransferProgress) -> None:
        """Take a file that comes in pieces."""
        number = header.get("file")
        if not _is_count(number):
            raise _garbled(header)
        path, asked_from = self._path(number), self._offsets[number]
        if "fault" in header:
            raise self._fault(path, header["fault"])
        if not _is_header(header):
            raise _garbled(header)
        offset, size, stamp, end = header["at"], header["size"], header["stamp"], header["until"]
        if offset and (offset, stamp) != (asked_from, self.left[path].get("stamp")):
            raise _garbled(header)
        with self._partial(path, stamp) as partial:
            if partial.size < offset:
                # Somebody else collects the same file meanwhile, and has what was here.
                self._busy.add(path)
                raise lines.BrokenStream(f"{path!r} has to be asked for anew")
            progress.advance(offset - asked_from)
            partial.start_at(offset)
            while "sha256" not in (line := _read_line(stream)):
                self._take_piece(line, partial, end - partial.size, stream, self._buffer, progress)
            if end < size:
                self._append_pieces(partial, path)
            sha256 = line["sha256"]
            if not partial.is_whole(size, sha256):
                # The next try begins anew.
                partial.discard()
                raise self._damaged(path)
            self._sink.publish(partial, path, header["mode"])
            with self._lock:
                self._sink.forget_partial(path, self._key(path))
            self._publish(path, size, sha256)

    def _take_piece(
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
        data, zeros = line.get("data"), line.get("zeros")
        if _is_count(data) and 0 < data <= min(left, PIECE):

            def keep(piece: memoryview) -> None:
                partial.write(piece)
                self._count(len(piece), progress)

            _fill(buffer[:data], stream, keep)
        elif _is_count(zeros) and 0 < zeros <= min(left, MAX_ZEROS):
            partial.write_zeros(zeros)
            self._count(zeros, progress)
        elif line:
            raise _garbled(line)

    def _path(self, number: int) -> str:
        """Return the path that was asked for under a number, and has not come yet."""
        if number not in self._waiting:
            raise _garbled(number)
        self._waiting.remove(number)
        return self._asked[number]

    def _publish(self, path: str, size: int, sha256: str) -> None:
        self._sink.remember(path, sha256, self._checksums)
        self._done(path, size, sha256)

    def _publish_small(self, file: SmallFile) -> None:
        self._publish(file.path, len(file.content), file.sha256)

    def _done(self, path: str, size: int, sha256: str) -> None:
        del self.left[path]
        self.collected.append(CollectedFile(path, size, sha256))

    def _count(self, nbytes: int, progress: TransferProgress) -> None:
        with self._lock:
            self.received += nbytes
        progress.advance(nbytes)

    def _arrived(self, entry: OutputEntry) -> int:
        if "stamp" not in entry or entry["path"] in self._busy:
            return 0
        return min(entry["size"], self._sink.arrived(entry["path"], self._key(entry["path"]), entry["stamp"]))

    def _key(self, path: str) -> str:
        return f"{self.job_id}/{path}"

    def _damaged(self, path: str) -> CollectError:
        """Return the error for what arrived and is not what was sent."""
        return CollectError(
            f"job {self.job_id}: the output {path!r} did not arrive as it was sent: its SHA-256 differs; try again. "
            f"{IF_DAMAGED_AGAIN}"
        )

    def _fault(self, path: str, why: object) -> CollectError:
        said = "".join(letter if letter.isprintable() else "?" for letter in str(why)[:200])
        return CollectError(f"job {self.job_id}: the output {path!r} {said}; try again")


def _read_line(stream: BinaryIO, limit: int = _LINE_BYTES) -> dict[str, Any]:
    """Read one line of JSON, signs of life aside."""
    while not (line := lines.read_line(stream, limit)):
        pass
    return line


def _fill(view: memoryview, stream: BinaryIO, keep: Callable[[memoryview], None] = lambda piece: None) -> None:
    """
    Read as many bytes as fit.

    :param keep: receives them, and what there is of them when the stream breaks off.
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


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _is_entry(entry: OutputEntry) -> bool:
    numbers = [entry.get("size"), entry.get("mode"), entry.get("needs", 0)]
    return isinstance(entry["path"], str) and all(map(_is_count, numbers)) and isinstance(entry.get("stamp", ""), str)


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 4:
        return False
    return all(map(_is_count, row[:3])) and isinstance(row[3], str)


def _is_header(header: dict[str, Any]) -> TypeGuard[FileHeader]:
    numbers = [header.get(name) for name in ("file", "mode", "at", "until", "size")]
    return all(map(_is_count, numbers)) and header["until"] <= header["size"] and isinstance(header.get("stamp"), str)


def _garbled(what: object) -> lines.GarbledStream:
    return lines.GarbledStream(f"the stream of files is garbled at {repr(what)[:60]}")
