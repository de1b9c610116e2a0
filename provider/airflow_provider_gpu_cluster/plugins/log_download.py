"""A copy of a job's log, piece by piece from its cluster, as fast as somebody takes it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.shown import shown_bytes

# Of a fault that passes, in seconds; then the browser says that the download has failed.
_PAUSES_S = (1.0, 3.0, 10.0)


class LogDownload:
    """
    The download of a log. It holds two pieces of it at most, of less than 1 MB each.

    :param conn_id: of the cluster.
    :param request: which log; see :class:`.gpu_run.protocol.logs.CopyLogRequest`.
    """

    def __init__(self, conn_id: str, request: Mapping[str, Any]) -> None:
        self._conn_id = conn_id
        self._request = request
        self._first: dict[str, Any] = {}

    async def begin(self) -> None:
        """
        Get the first piece.

        :raises GpuClusterError: there is no such log, or the cluster cannot be asked now.
        """
        self._first = await ask(self._conn_id, "copy-log", self._request)

    @property
    def problem(self) -> str:
        """Why the log cannot be read; empty if it can."""
        return str(self._first["problem"])

    async def pieces(self) -> AsyncIterator[bytes]:
        """
        Yield the log, as long as it was at the beginning.

        :raises GpuClusterError: the cluster cannot be asked any more, or there is another log in its place.
        """
        piece, rest = self._first, b""
        while True:
            is_last = piece["at_end"] or piece["end"] >= self._first["stop"]
            following = None if is_last else asyncio.ensure_future(self._piece(piece["end"]))
            try:
                data = rest + base64.b64decode(piece["data"])
                # A secret of Airflow's own may go on in the next piece, but hardly in the next line.
                lines = len(data) if is_last else data.rfind(b"\n") + 1 or len(data)
                data, rest = data[:lines], data[lines:]
                if data:
                    yield await asyncio.to_thread(shown_bytes, data)
                if following is None:
                    return
                piece = await following
            finally:
                if following is not None:
                    following.cancel()

    async def _piece(self, place: int) -> dict[str, Any]:
        request = {**self._request, "place": place, "most_bytes": self._first["stop"] - place}
        for pause_s in (*_PAUSES_S, None):
            try:
                piece: dict[str, Any] = await ask(self._conn_id, "copy-log", request)
            except (GpuClusterConnectionError, TimeoutError):
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
                continue
            if piece["file"] != self._first["file"] or piece["offset"] != place:
                raise GpuClusterError("the log was replaced or cut while it was being downloaded; download it again")
            return piece
        raise AssertionError
