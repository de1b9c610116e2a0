"""
A long line filled over several connections: pieces of large files come beside the stream that brings everything else.

One connection carries only so much over a distance, however large its window is, since the kernel limits what it keeps
for it. A piece has a partial file of its own, and so goes on from where it was in the next try.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.partial_file import PartialFile
from airflow_provider_gpu_cluster.session import BREAKS, Session

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 23


@dataclass(frozen=True)
class FilePiece:
    """
    A range of a large file.

    :param here: how many bytes of it are here from an earlier try.
    :param arrived: gives it when it is whole and checked, or why it does not come.
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
        """Say that it does not come."""
        with suppress(InvalidStateError):
            self.arrived.set_exception(error)


class DownloadLanes:
    """
    Fetches pieces, in their order and several at a time, for as long as the context lasts.

    :param make_session: makes a session with a connection of its own.
    :param take: reads the pieces that were asked for from a stream, in their order.
    """

    def __init__(
        self,
        job_id: str,
        pieces: Sequence[FilePiece],
        lanes: int,
        make_session: Callable[[], Session],
        take: Callable[[Sequence[FilePiece], BinaryIO], None],
    ) -> None:
        self._job_id = job_id
        self._take = take
        self._sessions: list[Session] = []
        self._threads = []
        for number in range(min(lanes, len(pieces))):
            session = make_session()
            self._sessions.append(session)
            mine = pieces[number::lanes]
            self._threads.append(threading.Thread(target=self._fetch, args=(session, mine), daemon=True))

    def __enter__(self) -> DownloadLanes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Those that are done already do not notice.
        for session in self._sessions:
            session.interrupt()
        for thread in self._threads:
            thread.join()

    def _fetch(self, session: Session, pieces: Sequence[FilePiece]) -> None:
        request = {"job_id": self._job_id, "files": [piece.row for piece in pieces]}
        try:
            with session, session.conversation("send", request) as (stream, _):
                self._take(pieces, stream)
        except (GpuClusterError, *BREAKS) as error:
            log.debug("a connection less to fetch over: %s", error)
            for piece in pieces:
                piece.fail(error)
        except BaseException as error:
            for piece in pieces:
                piece.fail(error)
            raise
