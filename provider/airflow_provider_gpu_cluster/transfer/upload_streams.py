"""
Several connections for an upload over a long round trip: they are opened while the cluster checks what it lacks, and
carry pieces in addition to the connection on which the cluster asks for them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.exceptions import GpuClusterError, StagingError
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.transfer.sftp_upload import pieces_to

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 0.2


@contextlib.contextmanager
def open_stream(session: Session) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """
    Open a further channel that takes pieces, over a connection of its own.

    :return: what to read from it and what to write pieces to.
    """
    with (
        session.beside() as beside,
        beside.conversation("fill", {}) as (stream, out),
        pieces_to(beside, out) as pieces_out,
    ):
        yield stream, pieces_out


class UploadStreams:
    """
    Further channels that carry pieces, as long as the context lasts.

    :param count: how many.
    :param session: speaks with the cluster over the connection beside which they are opened.
    """

    def __init__(self, count: int, session: Session) -> None:
        self._session = session
        self._send: Callable[[BinaryIO], None] | None = None
        self._is_known = threading.Event()
        self._begin = threading.Lock()
        self._begun: list[threading.Thread] = []
        self._errors: list[StagingError] = []
        self._threads = [threading.Thread(target=self._use_stream, daemon=True) for _ in range(count)]

    def __enter__(self) -> UploadStreams:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_beginning()

    def use(self, send: Callable[[BinaryIO], None]) -> None:
        """
        Have them send, now that it is known what.

        :param send: sends over a channel what nobody else sends, and that nothing more comes.
        """
        self._send = send
        self._is_known.set()

    def finish(self) -> None:
        """
        Wait until they have sent what they have taken on, as far as they could. Those that are still being opened are
        not waited for.

        :raises StagingError: something could not be read.
        :raises GpuClusterConnectionError: the call was interrupted.
        """
        self._stop_beginning()
        for thread in self._begun:
            while thread.is_alive():
                thread.join(_CHECK_EVERY_S)
                self._session.connection.stop_if_interrupted()
        if self._errors:
            raise self._errors[0]

    def _stop_beginning(self) -> None:
        with self._begin:
            self._send = None
        self._is_known.set()

    def _use_stream(self) -> None:
        try:
            with open_stream(self._session) as (stream, out):
                self._is_known.wait()
                with self._begin:
                    send = self._send
                    if send is not None:
                        self._begun.append(threading.current_thread())
                if send is not None:
                    send(out)
                    # It answers when it has written everything down.
                    lines.read_line(stream)
        except StagingError as error:
            self._errors.append(error)
        except (*BREAKS, lines.BrokenStream, lines.GarbledStream, GpuClusterError) as error:
            log.debug("a connection less to send over: %s", error)
