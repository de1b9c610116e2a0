"""
Downloads of single outputs through the API server, in bounded memory.

A small file comes in slices over the connection that all viewers share, and is checked before its first byte is passed
on. A large one comes over a connection of its own, so that it keeps nobody waiting; only so many do at a time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import anyio
import anyio.to_thread
from fastapi.responses import StreamingResponse

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol.lines import BrokenStream, GarbledStream
from airflow_provider_gpu_cluster.gpu_run.protocol.looks import SLICE_BYTES
from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.transfer.one_output import checksum_of, pieces_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_gpu_cluster.gpu_run.protocol.looks import ReadOutputReply, SendOutputRequest
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle

MOST_AT_ONCE = 4
"""The number of connections of this process over which large files come."""
SMALL_BYTES = 4 << 20
# How long a browser may take nothing.
_STALLED_S = 120.0

_Result = TypeVar("_Result")
log = logging.getLogger(__name__)


class TooManyDownloads(Exception):
    """As many large files are being read as may be at a time."""


class _Lines:
    """The connections that may be open for large files."""

    def __init__(self) -> None:
        self._used = 0
        self.threads: anyio.CapacityLimiter | None = None

    def take(self) -> None:
        """
        Take one.

        :raises TooManyDownloads: all are taken.
        """
        if self._used >= MOST_AT_ONCE:
            raise TooManyDownloads(f"{MOST_AT_ONCE} large files are being read already; try again in a minute")
        self._used += 1

    def give_back(self) -> None:
        self._used -= 1

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Do something that blocks, in a thread that nothing else waits for."""
        if self.threads is None:
            self.threads = anyio.CapacityLimiter(MOST_AT_ONCE)
        return await anyio.to_thread.run_sync(work, limiter=self.threads)


_lines = _Lines()


async def facts_of(handle: JobHandle, path: str, *, checksum: bool = False) -> ReadOutputReply:
    """
    Return what is known of an output, without its content.

    :param checksum: whether its SHA-256 is wanted, if that can be had at once.
    """
    request = {"job_id": handle.job_id, "path": path, "size": 0, "checksum": checksum}
    facts: ReadOutputReply = await ask(handle.gpu_cluster_conn_id, "read-output", request)
    return facts


async def whole(handle: JobHandle, path: str, facts: ReadOutputReply) -> tuple[bytes, str]:
    """
    Return the content of a small file, and its SHA-256.

    :param facts: of the file, with its checksum.
    :raises CollectError: it has changed.
    """
    content = bytearray()
    while len(content) < facts["size"]:
        size = min(SLICE_BYTES, facts["size"] - len(content))
        request = {"job_id": handle.job_id, "path": path, "offset": len(content), "size": size, "stamp": facts["stamp"]}
        part: ReadOutputReply = await ask(handle.gpu_cluster_conn_id, "read-output", request)
        data = base64.b64decode(part.get("data", ""))
        if not data or len(data) > size:
            raise CollectError(f"the output {path!r} has changed while it was read; download it again")
        content += data
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != facts.get("sha256", sha256):
        raise CollectError(f"the output {path!r} has changed while it was read; download it again")
    return bytes(content), sha256


async def checksum(handle: JobHandle, path: str) -> tuple[ReadOutputReply, str]:
    """
    Return what is known of an output, and its SHA-256.

    :raises TooManyDownloads: it is large, and others are being read.
    """
    facts = await facts_of(handle, path, checksum=True)
    if "sha256" in facts:
        return facts, facts["sha256"]

    def compute() -> str:
        with _sent(handle, {"job_id": handle.job_id, "path": path, "only_checksum": True}) as stream:
            return checksum_of(stream, path)

    _lines.take()
    try:
        return facts, await _lines.run(compute)
    finally:
        _lines.give_back()


@contextlib.contextmanager
def _sent(handle: JobHandle, request: SendOutputRequest) -> Iterator[BinaryIO]:
    """Yield the stream of an output over a connection of its own."""
    with cluster_of(handle.gpu_cluster_conn_id) as cluster:
        session = cluster.session.retrying_for(0)
        try:
            with session.conversation("send-output", request) as (stream, _):
                yield stream
        except (BrokenStream, GarbledStream) as error:
            raise GpuClusterConnectionError(f"{cluster.settings.where}: {error}") from error


def _pieces(handle: JobHandle, path: str, facts: ReadOutputReply) -> Iterator[bytes]:
    with _sent(handle, {"job_id": handle.job_id, "path": path}) as stream:
        yield from pieces_of(stream, path, facts["stamp"], facts["size"])


class LargeFile(StreamingResponse):
    """
    A large file on its way from the cluster to a browser.

    It reads on when the browser has taken what was read. If the file changes or the cluster is lost, the connection
    ends before the announced length, so that no browser takes what has come for the file.
    """

    def __init__(self, handle: JobHandle, path: str, facts: ReadOutputReply, headers: dict[str, str]) -> None:
        self._first = b""
        self._rest = cast("Generator[bytes]", _pieces(handle, path, facts))
        self._is_open = False
        headers = {**headers, "Content-Length": str(facts["size"])}
        super().__init__(self._all(), headers=headers, media_type="application/octet-stream")

    async def begin(self) -> None:
        """
        Connect, and wait for the first bytes, as long as an error can still be told.

        :raises TooManyDownloads: others are on their way.
        :raises GpuClusterError: the cluster cannot be reached, or the file has changed.
        """
        _lines.take()
        self._is_open = True
        try:
            self._first = await self._next()
        except BaseException:
            await self._end()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see :meth:`begin`."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._end()

    async def stream_response(self, send: Send) -> None:
        """Send it, for as long as the browser takes something."""

        async def patient(message: Any) -> None:
            with anyio.fail_after(_STALLED_S):
                await send(message)

        try:
            await super().stream_response(patient)
        except GpuClusterError as error:
            log.warning("A download was broken off: %s", words_of(error))
            raise

    async def _all(self) -> AsyncIterator[bytes]:
        piece = self._first
        while piece:
            yield piece
            piece = await self._next()

    async def _next(self) -> bytes:
        return await _lines.run(lambda: next(self._rest, b""))

    async def _end(self) -> None:
        """Close the connection."""
        if self._is_open:
            self._is_open = False
            try:
                with anyio.CancelScope(shield=True):
                    await _lines.run(self._rest.close)
            finally:
                _lines.give_back()
