"""Read pieces of contents from a channel, and notice when no more arrive. See :mod:`.staging.receiving`."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from typing import TYPE_CHECKING, BinaryIO, Iterator, cast

from .. import protocol
from ..cache.incoming import PIECE, Incoming
from ..errors import Refused
from ..protocol import lines
from .spool import SpooledStream

if TYPE_CHECKING:
    from ..protocol.inputs import PieceHeader

# A worker that sends nothing for so long has gone; other processes may then ask for what it was sending.
SILENCE_S = 120


class WorkerGone(Exception):
    """The worker has gone."""


def listen() -> None:
    """Raise :class:`WorkerGone` when nothing arrives for :data:`SILENCE_S`; each call starts the time anew."""
    signal.signal(signal.SIGALRM, _fall_silent)
    signal.alarm(SILENCE_S)


def stop_listening() -> None:
    """Stop expecting data for now."""
    signal.alarm(0)


def _fall_silent(*_: object) -> None:
    raise WorkerGone


class Pieces:
    """
    The pieces that a worker sends over one channel.

    :param stream: the channel.
    :param folder: the folder of spool files, if the worker sends any.
    """

    def __init__(self, stream: BinaryIO, folder: str) -> None:
        self._stream = SpooledStream(stream, folder, listen)

    def headers(self) -> Iterator[PieceHeader]:
        """
        Yield the headers of pieces up to the end; the caller reads the bytes that follow each.

        :raises frames.BrokenStream: the stream ended early.
        :raises Refused: a line is not a header.
        """
        while True:
            listen()
            header = lines.read_line(cast(BinaryIO, self._stream))
            if header.get("end"):
                stop_listening()
                return
            at, length = header.get("at"), header.get("n")
            if not isinstance(at, int) or not isinstance(length, int) or at < 0 or length <= 0:
                raise Refused(protocol.BAD_REQUEST, f"{header} is no piece of a content")
            yield cast("PieceHeader", header)

    def take(self, header: PieceHeader, incoming: Incoming) -> bool:
        """
        Write a piece at its place, as far as it arrives.

        :return: False when it arrived damaged.
        :raises WorkerGone: it does not arrive completely.
        """
        at, left = header["at"], header["n"]
        if header.get("zeros"):
            with _here_already():
                incoming.skip(at, left)
            return True
        if "sha256" in header:
            sha256, data = self.whole(left)
            if sha256 != header["sha256"]:
                return False
            with _here_already():
                incoming.write(at, data)
            return True
        while left:
            data = self._read(min(PIECE, left))
            if not data:
                raise WorkerGone
            with _here_already():
                incoming.write(at, data)
            at, left = at + len(data), left - len(data)
        return True

    def whole(self, size: int) -> tuple[str, bytes]:
        """
        Read so many bytes, and return their SHA-256 and the bytes.

        :raises WorkerGone: there are fewer.
        :raises Refused: there are too many to read at once.
        """
        if size > PIECE:
            raise Refused(protocol.BAD_REQUEST, f"a piece of {size} bytes that has to be read as a whole")
        data = self._read(size)
        if len(data) < size:
            raise WorkerGone
        return hashlib.sha256(data).hexdigest(), data

    def close(self) -> None:
        """Close open files, and remove those that were not read."""
        self._stream.close()

    def _read(self, size: int) -> bytes:
        """Read so many bytes, or fewer at the end of the stream."""
        listen()
        return self._stream.read(size)


def _here_already() -> contextlib.AbstractContextManager[None]:
    """Ignore that a content already has its final name: another process completed it, and nothing more is written."""
    return contextlib.suppress(FileNotFoundError)
