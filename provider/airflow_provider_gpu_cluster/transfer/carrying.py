"""
What a job brings along from one cluster to another, through this machine and without a file on it.

The old cluster says what there is, with checksums. The new one says which of these contents it lacks, as for inputs.
Those are read from the old one piece by piece while they are sent on. The new one checks each content as a whole, so
damage on either way is found; what has arrived there counts, whatever breaks.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

import paramiko

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.reply import garbled as garbled_reply
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import SFTP
from airflow_provider_gpu_cluster.connection.sftp import PipelinedFile, SftpRefusal
from airflow_provider_gpu_cluster.connection.sftp_small_files import read_small_files
from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import CannotCarryError, ChecksumError, GpuClusterError, SourceError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import carrying as types
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.gpu_run.protocol.files import (
    MAX_BATCH_BYTES,
    MAX_BATCH_FILES,
    MAX_ZEROS,
    PIECE,
    SMALL,
)
from airflow_provider_gpu_cluster.sources.source import Entry, UploadSource, canonical_digest
from airflow_provider_gpu_cluster.transfer.file_stream import (
    fill,
    garbled,
    is_count,
    is_header,
    read_batch,
    read_line,
)
from airflow_provider_gpu_cluster.transfer.piece_sender import Content, Piece, PieceSender
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.carrying import (
        CarriedFolder,
        CarriedJob,
        CarriedUpload,
        CarryOutRequest,
    )

# The list of a million files takes that much.
_MOST_LIST_BYTES = 1 << 30
# How many requests are on their way to the old cluster, so that it never waits for the next one.
_ASKED_AHEAD = 3


@dataclass(frozen=True)
class Carried:
    """
    What was brought along.

    :param files: how many files the job has brought along; ``bytes``, their size.
    :param sent_bytes: how much of that the new cluster lacked.
    :param seconds: how long it took.
    """

    files: int
    bytes: int
    sent_bytes: int
    seconds: float

    def __str__(self) -> str:
        if not self.files:
            return "nothing to bring along"
        text = f"{self.files:,} {'file' if self.files == 1 else 'files'} ({size_text(self.bytes)}) brought along in "
        return (
            text
            + f"{self.seconds:.3g} s"
            + ("" if self.sent_bytes >= self.bytes else f", {size_text(self.sent_bytes)} of it sent")
        )


def size_text(nbytes: float) -> str:
    """Return a number of bytes in words."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


class SourceBroken(GpuClusterError):
    """The connection to the old cluster broke while files were read from it; another one can go on."""


def job_to_carry(session: Session, request: CarryOutRequest) -> CarriedJob:
    """
    Ask a cluster what a job would bring along.

    :raises CannotCarryError: something of it cannot be carried.
    :raises GpuClusterError: there is no such job, or it runs.
    """

    def take(_: object, stream: BinaryIO) -> CarriedJob:
        return cast("CarriedJob", checked(read_line(stream, _MOST_LIST_BYTES), types.CarriedJob))

    job = session.read("carry-out", {**request, "list": True}, take)
    if job["why_not"]:
        raise CannotCarryError(
            f"{session.settings.where}: job {request['job_id']} stays there, as not everything can be brought along: "
            + cleaned(job["why_not"])
        )
    if not request.get("without_checksums") and not {"folders", "linked", "continuation"} <= job.keys():
        raise garbled_reply(session.settings.where, "gpu-run carry-out", "its list is not complete")
    return job


@dataclass(frozen=True)
class CarriedSource(UploadSource):
    """
    A folder of a job on another cluster.

    :param folder: as that cluster has listed it.
    """

    folder: CarriedFolder = field(repr=False)

    @classmethod
    def of(cls, folder: CarriedFolder) -> CarriedSource:
        """Return the source for a folder."""
        written = folder["facts"].get("written", "outputs")
        return cls(folder["kind"], folder["name"], written, folder["single_file"], folder)

    @property
    def digest(self) -> str:
        """Identity of the content."""
        return canonical_digest(self.rows)

    def entries(self) -> Iterator[Entry]:
        """
        Yield everything in it.

        :raises WrongType: the cluster has listed something that is no file, folder or link.
        """
        for row in self.folder["rows"]:
            try:
                path, kind, mode, content, *size = row
                if kind == "file":
                    yield Entry(checked(path, str), kind, checked(size[0], int), checked(mode, int), content=content)
                else:
                    yield Entry(checked(path, str), kind, target=checked(content, str))
            except (ValueError, IndexError) as error:
                raise WrongType(f"{cleaned(repr(row)[:60])} is no file, folder or link") from error

    def _identified(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        return entries

    def to_json(self) -> CarriedUpload:
        """Return it as an input of the new cluster."""
        upload = cast("CarriedUpload", {**super().to_json(), "facts": self.folder["facts"]})
        if "modified_ns" in self.folder:
            upload["modified_ns"] = self.folder["modified_ns"]
        return upload

    def path_of(self, entry: Entry) -> str:
        """Return the path of a file, relative to the job's directory."""
        folder = self.kind if self.single_file else os.path.join(self.kind, self.name)
        return os.path.join(folder, entry.path)


@dataclass(frozen=True)
class Relay:
    """
    Makes senders that read from the old cluster what they send to the new one.

    :param session: speaks with the old cluster, from the thread that made this; others get connections of their own.
    """

    session: Session
    job_id: str
    _thread: int = field(default_factory=threading.get_ident)

    def sender(self, contents: Mapping[str, Content], out: BinaryIO, progress: TransferProgress) -> PieceSender:
        """Return a sender for one channel to the new cluster."""
        return _RelayingSender(self, contents, out, progress)

    @contextlib.contextmanager
    def reader(self) -> Iterator[_Reader]:
        """
        Open a channel to the old cluster for this thread.

        :raises SourceBroken: it cannot be reached now.
        """
        # What breaks on the way to the new cluster must not pass through what explains breaks of the old one.
        with contextlib.ExitStack() as stack, _old_one_explained(self.session):
            session = self.session
            if threading.get_ident() != self._thread:
                session = stack.enter_context(self.session.beside())
            if session.settings.transfer == SFTP:
                reader: _Reader = _SftpReader(session, stack.enter_context(session.connection.sftp()), self.job_id)
            else:
                conversation = session.conversation("carry-out", {"job_id": self.job_id})
                reader = _StreamReader(session, *conversation.__enter__())
                stack.callback(conversation.__exit__, None, None, None)
            kept = stack.pop_all()
        try:
            yield reader
        finally:
            with contextlib.suppress(GpuClusterError, *BREAKS):
                kept.close()


@contextlib.contextmanager
def _old_one_explained(session: Session) -> Iterator[None]:
    try:
        yield
    except (*BREAKS, lines.BrokenStream, lines.GarbledStream) as error:
        raise SourceBroken(
            f"{session.settings.where}: the connection broke while files were read there: {error}"
        ) from error


@dataclass(frozen=True)
class _Asked:
    """
    Pieces that are asked for together: of small files, or one of a large file.

    :param paths: of their files, relative to the job's directory.
    """

    pieces: list[Piece]
    contents: list[Content]

    @property
    def is_small(self) -> bool:
        return self.contents[0].entry.size < SMALL

    @property
    def paths(self) -> list[str]:
        return [cast(CarriedSource, one.source).path_of(one.entry) for one in self.contents]

    @property
    def stamp(self) -> str | None:
        content = self.contents[0]
        return cast(CarriedSource, content.source).folder["stamps"].get(content.entry.path)


class _Reader:
    """
    Reads pieces on the old cluster.

    :param session: speaks with it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def ask(self, asked: _Asked) -> None:
        """Ask for pieces, ahead of :meth:`answer`."""
        with _old_one_explained(self._session):
            self._ask(asked)

    def answer(self, asked: _Asked) -> Iterator[tuple[int, bytes | memoryview | int]]:
        """
        Yield the parts of those pieces in order: the number of the piece, and bytes, or how many zeros there are.

        :raises ChecksumError: a file has changed.
        :raises SourceError: it cannot be read.
        :raises SourceBroken: the connection broke.
        """
        with _old_one_explained(self._session):
            yield from self._parts(asked)

    def _ask(self, asked: _Asked) -> None:
        """Do what is needed ahead."""

    def _parts(self, asked: _Asked) -> Iterator[tuple[int, bytes | memoryview | int]]:
        raise NotImplementedError


class _StreamReader(_Reader):
    def __init__(self, session: Session, stream: BinaryIO, out: BinaryIO) -> None:
        super().__init__(session)
        self._stream = stream
        self._out = out

    def _ask(self, asked: _Asked) -> None:
        if asked.is_small:
            rows: list[list[object]] = [[path, 0, None] for path in asked.paths]
        else:
            piece = asked.pieces[0]
            rows = [[asked.paths[0], piece.start, asked.stamp, piece.end, piece.start]]
        lines.write_line(self._out, {"files": rows})

    def _parts(self, asked: _Asked) -> Iterator[tuple[int, bytes | memoryview | int]]:
        while "end" not in (line := read_line(self._stream)):
            if "fault" in line:
                number = line.get("file", 0)
                content = asked.contents[number if is_count(number) and number < len(asked.contents) else 0]
                raise ChecksumError(f"{content} {cleaned(str(line['fault']))}; nothing of it was kept, try again")
            if "small" in line:
                for number, _, _, data in read_batch(line["small"], self._stream):
                    if number >= len(asked.pieces) or len(data) != asked.contents[number].entry.size:
                        raise ChecksumError(f"{asked.contents[0]} changed while it was being sent, try again")
                    yield number, data
            elif is_header(line):
                yield from self._large(asked.pieces[0])
            else:
                raise garbled(line)

    def _large(self, piece: Piece) -> Iterator[tuple[int, bytes | memoryview | int]]:
        left = piece.end - piece.start
        while "sha256" not in (line := read_line(self._stream)):
            data, zeros = line.get("data"), line.get("zeros")
            if "fault" in line:
                raise ChecksumError(f"a file that is brought along {cleaned(str(line['fault']))}")
            if is_count(data) and 0 < data <= min(left, PIECE):
                view = memoryview(bytearray(data))
                fill(view, self._stream)
                yield 0, view
                left -= data
            elif is_count(zeros) and 0 < zeros <= min(left, MAX_ZEROS):
                yield 0, zeros
                left -= zeros
            elif line:
                raise garbled(line)
        if left:
            raise garbled(line)


class _SftpReader(_Reader):
    def __init__(self, session: Session, sftp: paramiko.SFTPClient, job_id: str) -> None:
        super().__init__(session)
        self._sftp = sftp
        self._job_id = job_id

    def _parts(self, asked: _Asked) -> Iterator[tuple[int, bytes | memoryview | int]]:
        paths = [os.fsencode(self._session.connection.sftp_path(f"{self._job_id}/{path}")) for path in asked.paths]
        try:
            if asked.is_small:
                sizes = [content.entry.size for content in asked.contents]
                for number, data in read_small_files(self._sftp, list(zip(paths, sizes, strict=True))):
                    if isinstance(data, SftpRefusal):
                        raise data
                    yield number, data
                return
            piece = asked.pieces[0]
            with PipelinedFile(self._sftp, paths[0], "rb") as file:
                for data in file.read(piece.start, piece.end):
                    # It may be a hole.
                    yield 0, len(data) if data.count(0) == len(data) else data
        except SftpRefusal as refusal:
            raise SourceError(f"{asked.contents[0]} cannot be read by SFTP: {refusal}") from refusal


class _RelayingSender(PieceSender):
    def __init__(
        self, relay: Relay, contents: Mapping[str, Content], out: BinaryIO, progress: TransferProgress
    ) -> None:
        super().__init__(contents, out, progress)
        self._relay = relay
        self._whole = b""

    def send_all(self, pieces: deque[Piece]) -> None:
        """
        Send pieces until none is left in the shared queue.

        :raises SourceBroken: the old cluster cannot be reached any more.
        """
        following: list[Piece] = []
        asked = deque(self._next(pieces, following, _ASKED_AHEAD))
        if not asked:
            return
        with self._relay.reader() as reader:
            for one in asked:
                reader.ask(one)
            while asked:
                one = asked.popleft()
                at = [piece.start for piece in one.pieces]
                for number, data in reader.answer(one):
                    self._pass_on(one, number, at[number], data)
                    at[number] += data if isinstance(data, int) else len(data)
                if at != [piece.end for piece in one.pieces]:
                    raise ChecksumError(f"{one.contents[0]} changed while it was being sent, try again")
                for more in self._next(pieces, following, 1):
                    asked.append(more)
                    reader.ask(more)

    def _next(self, pieces: deque[Piece], following: list[Piece], count: int) -> Iterator[_Asked]:
        """
        Take the next pieces from the queue.

        :param following: the piece that was taken last and belongs to the next request, if there is one.
        """
        for _ in range(count):
            taken: list[Piece] = []
            size = 0
            while True:
                if not following:
                    try:
                        following.append(pieces.popleft())
                    except IndexError:
                        break
                piece = following[0]
                is_small = self._contents[piece.key].entry.size < SMALL
                size += piece.end - piece.start
                if taken and (not is_small or size > MAX_BATCH_BYTES // 2 or len(taken) >= MAX_BATCH_FILES):
                    break
                taken.append(following.pop())
                if not is_small:
                    break
            if not taken:
                return
            yield _Asked(taken, [self._contents[piece.key] for piece in taken])

    def _pass_on(self, asked: _Asked, number: int, at: int, data: bytes | memoryview | int) -> None:
        piece, size = asked.pieces[number], asked.contents[number].entry.size
        count = data if isinstance(data, int) else len(data)
        if size <= protocol.WHOLE_BYTES:
            # Of its size, it may come with holes, and goes whole.
            self._whole = (b"" if at == 0 else self._whole) + (bytes(count) if isinstance(data, int) else bytes(data))
            if len(self._whole) == size:
                self._say({"key": piece.key, "at": 0, "n": size, "whole": True})
                self._bytes(self._whole)
        elif isinstance(data, int):
            self._say({"key": piece.key, "at": at, "n": count, "zeros": True})
        else:
            self._say({"key": piece.key, "at": at, "n": count})
            self._bytes(data)
        self._progress.advance(count)
