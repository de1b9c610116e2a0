"""
Several connections for a download over a long round trip: they carry pieces of large files, in addition to the stream
that carries everything else.

Over a distance the throughput of one connection is limited, however large its window is, because the kernel limits its
buffers. Each piece has its own partial file, so the next try resumes it.
"""

from __future__ import annotations

import io
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.files.partial_file import PartialFile
from airflow_provider_gpu_cluster.gpu_run.protocol import lines

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SendRequest

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 22
# Number of pieces requested ahead, so that a connection never waits for the next one.
_ASKED_AHEAD = 2


@dataclass(frozen=True)
class FilePiece:
    """
    A range of a large file.

    :param here: how many bytes of it have arrived in an earlier try.
    :param arrived: its result is the whole and checked piece, or the error why it does not arrive.
    """

    path: str
    stamp: str
    start: int
    end: int
    here: int
    arrived: Future[PartialFile] = field(default_factory=Future)

    @property
    def row(self) -> list[Any]:
        """What to ask the cluster for."""
        return [self.path, self.start + self.here, self.stamp, self.end, self.start]

    def fail(self, error: BaseException) -> None:
        """Set the error why it does not arrive."""
        with suppress(InvalidStateError):
            self.arrived.set_exception(error)


class DownloadStreams:
    """
    Fetches pieces as long as the context lasts: each connection takes the next piece that none has requested.

    :param count: number of connections.
    :param session: session of the main connection, in addition to which these are opened.
    :param take: reads a requested piece from a stream.
    """

    def __init__(
        self,
        job_id: str,
        pieces: Sequence[FilePiece],
        count: int,
        session: Session,
        take: Callable[[FilePiece, BinaryIO], None],
    ) -> None:
        self._request: SendRequest = {"job_id": job_id, "list": False, "is_beside": True}
        self._pieces = deque(pieces)
        self._take = take
        self._sessions = [session.beside() for _ in range(min(count, len(pieces)))]
        self._threads = [
            threading.Thread(target=self._fetch, args=(session,), daemon=True) for session in self._sessions
        ]

    def __enter__(self) -> DownloadStreams:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # This does not affect sessions that are already done.
        for session in self._sessions:
            session.connection.interrupt()
        for thread in self._threads:
            thread.join()

    def _fetch(self, session: Session) -> None:
        asked = deque(self._next(_ASKED_AHEAD))
        first = io.BytesIO()
        for piece in asked:
            _ask(first, piece)
        try:
            with session, session.conversation("send", self._request, first.getvalue()) as (stream, out):
                while asked:
                    self._take(asked[0], stream)
                    asked.popleft()
                    for piece in self._next(1):
                        asked.append(piece)
                        _ask(out, piece)
        except (GpuClusterError, *BREAKS) as error:
            log.debug("a connection less to fetch over: %s", error)
            self._give_up(asked, error)
        except BaseException as error:
            self._give_up(asked, error)
            raise

    def _next(self, count: int) -> list[FilePiece]:
        pieces: list[FilePiece] = []
        with suppress(IndexError):
            while len(pieces) < count:
                pieces.append(self._pieces.popleft())
        return pieces

    def _give_up(self, asked: Iterable[FilePiece], error: BaseException) -> None:
        """Fail these pieces and all that are left, because a file is useless without one of its pieces."""
        for piece in (*asked, *self._next(len(self._pieces))):
            piece.fail(error)


def _ask(out: BinaryIO, piece: FilePiece) -> None:
    lines.write_line(out, {"files": [piece.row]})
