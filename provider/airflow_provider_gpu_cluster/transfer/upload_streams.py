"""
A long line filled over several connections: they are opened while the cluster looks what it lacks, and take pieces
beside the one on which it asks for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import BinaryIO, TypeAlias

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.exceptions import GpuClusterError, StagingError
from airflow_provider_gpu_cluster.gpu_run.protocol import lines

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 0.2

Lane: TypeAlias = "Callable[[], AbstractContextManager[tuple[BinaryIO, BinaryIO]]]"


class UploadLanes:
    """
    Further channels that take pieces, for as long as the context lasts.

    :param count: how many.
    :param lane: opens one, over a connection of its own.
    """

    def __init__(self, count: int, lane: Lane) -> None:
        self._lane = lane
        self._send: Callable[[BinaryIO], None] | None = None
        self._is_known = threading.Event()
        self._begin = threading.Lock()
        self._begun: list[threading.Thread] = []
        self._errors: list[StagingError] = []
        self._threads = [threading.Thread(target=self._use_lane, daemon=True) for _ in range(count)]

    def __enter__(self) -> UploadLanes:
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

    def finish(self, check: Callable[[], None]) -> None:
        """
        Wait until they have sent what they have taken on, as far as they could. Those that are still being opened are
        not waited for.

        :param check: called again and again; what it raises ends the waiting.
        :raises StagingError: something could not be read.
        """
        self._stop_beginning()
        for thread in self._begun:
            while thread.is_alive():
                thread.join(_CHECK_EVERY_S)
                check()
        if self._errors:
            raise self._errors[0]

    def _stop_beginning(self) -> None:
        with self._begin:
            self._send = None
        self._is_known.set()

    def _use_lane(self) -> None:
        try:
            with self._lane() as (stream, out):
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
        except (*BREAKS, lines.BrokenStream, GpuClusterError) as error:
            log.debug("a connection less to send over: %s", error)
