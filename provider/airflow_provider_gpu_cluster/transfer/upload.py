"""Uploads a job's inputs to the cluster: only what the cluster lacks."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.reply import parsed
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.gpu_run.protocol import lines, replies
from airflow_provider_gpu_cluster.sources import Source, UploadSource
from airflow_provider_gpu_cluster.transfer.patience import Patience
from airflow_provider_gpu_cluster.transfer.piece_sender import Content, Piece, PieceSender
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from airflow_provider_gpu_cluster.transfer.sftp_upload import pieces_to
from airflow_provider_gpu_cluster.transfer.streams import streams_for
from airflow_provider_gpu_cluster.transfer.upload_streams import UploadStreams

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import UploadNews, Want
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import StageReply, SubmitReply

PIECE_BYTES = 1 << 23
# The SHA-256 of such a content is not known before it was sent, so each piece carries its own, computed in memory.
TAGGED_PIECE_BYTES = 1 << 20

_MOST_LINE_BYTES = 1 << 24
_MOST_IDLE_ROUNDS = 100
_BREAKS = (*BREAKS, lines.BrokenStream)


class Upload:
    """
    Sends the contents that the cluster asks for; the conversation is that of :mod:`.gpu_run.staging.receiving`.

    ::

        while (result := session.converse(verb, request, upload.converse)) is None: ...

    :param sources: all inputs of the job.
    :param session: its connection is the one on which :meth:`converse` speaks.
    :param sender: makes what sends pieces over one channel.
    """

    def __init__(
        self, sources: Sequence[Source], session: Session, sender: Callable[..., PieceSender] = PieceSender
    ) -> None:
        self._sources = sources
        self._session = session
        self._sender = sender
        self._name = session.settings.name
        self._contents: dict[str, Content] = {}
        self._left = math.inf
        self._is_progress = False
        self.has_begun = False
        """Whether the cluster has asked for anything."""
        self._progress: TransferProgress | None = None
        self._sent_before = 0

    @property
    def sent_bytes(self) -> int:
        """How much was sent so far, in bytes, over all connections."""
        return self._sent_before + (0 if self._progress is None else self._progress.done)

    def converse(
        self, reply: StageReply | SubmitReply, stream: BinaryIO, out: BinaryIO
    ) -> StageReply | SubmitReply | None:
        """
        Send what the cluster asks for until everything is in place.

        :param reply: the cluster's first reply; ``needs`` lists the inputs that it needs.
        :return: the final reply; None if the connection broke after some progress: another connection continues.
        :raises SourceError: something cannot be read.
        :raises ChecksumError: a file has changed since its checksum was taken.
        """
        if not reply.get("needs"):
            return reply
        self.has_begun = True
        self._is_progress = False
        needed = [self._sources[index] for index in reply["needs"] if 0 <= index < len(self._sources)]
        uploads = [source for source in needed if isinstance(source, UploadSource)]
        if len(uploads) < len(reply["needs"]):
            raise WrongType(f"it needs inputs that it was not offered: {reply['needs'][:10]}")
        self._contents = {
            entry.content: Content(source, entry) for source in uploads for entry in source.manifest if entry.size
        }
        with contextlib.ExitStack() as stack:
            try:
                lines.write_line(out, {"rows": [source.rows for source in uploads]})
                return self._converse(stream, out, stack)
            except _BREAKS:
                # It may have said why it hung up.
                with contextlib.suppress(*_BREAKS):
                    while True:
                        self._next(stream)
                if self._is_progress:
                    return None
                raise

    def _converse(self, stream: BinaryIO, out: BinaryIO, stack: contextlib.ExitStack) -> StageReply | SubmitReply:
        progress: TransferProgress | None = None
        wants: list[Want] = []
        rounds = 0
        # At first, as many connections as are useful if it lacks everything.
        size = sum(content.entry.size for content in self._contents.values())
        streams: UploadStreams | None = stack.enter_context(self._streams(size))
        while "done" not in (message := self._next(stream)):
            wants += self._wants(message.get("want", []), len(wants))
            if "send" not in message:
                continue
            if progress is None:
                self._is_progress = message["send"] < self._left
                self._left = message["send"]
                self._sent_before = self.sent_bytes
                progress = stack.enter_context(TransferProgress(f"upload to {self._name}", message["send"]))
                self._progress = progress
            rounds += 1
            if rounds > len(self._contents) + _MOST_IDLE_ROUNDS:
                raise WrongType("it asks for the same again and again")
            self._send(wants, out, progress, streams or stack.enter_context(self._streams(message["send"])))
            wants, streams = [], None
        return message["done"]

    def _streams(self, size: int) -> UploadStreams:
        count = streams_for(self._session.connection.round_trip_s, size) - 1
        return UploadStreams(count, self._session)

    def _wants(self, wants: Any, before: int) -> list[Want]:
        """Return what the cluster asks for, if it was offered; each content once, and each of its bytes once."""
        if not isinstance(wants, list) or before + len(wants) > len(self._contents):
            raise WrongType("it asks for more than it was offered")
        for want in wants:
            try:
                key, ranges = want
                content = self._contents.get(key)
                at = 0
                for start, end in ranges:
                    if type(start) is not int or type(end) is not int or not at <= start < end:
                        raise ValueError
                    at = end
            except (TypeError, ValueError):
                raise WrongType(f"{repr(want)[:60]} is no content with ranges") from None
            if content is None or at > content.entry.size:
                raise WrongType(f"it asks for something that was not offered: {repr(want)[:60]}")
        return wants

    def _next(self, stream: BinaryIO) -> UploadNews:
        """Return the cluster's next message; raise an error that it reports."""
        patience = Patience()
        while True:
            line = stream.readline(_MOST_LINE_BYTES)
            if not line.endswith(b"\n") and len(line) < _MOST_LINE_BYTES:
                raise lines.BrokenStream("the connection broke while files were sent")
            if line != b"\n":
                break
            patience.sign_of_life()
        message = checked(parsed(line), dict[str, Any])
        if "error" in message:
            raise self._session.error_of(checked(message["error"], replies.Fault))
        if not isinstance(message.get("done", {}), dict) or type(message.get("send", 0)) is not int:
            raise WrongType("send or done is not what it should be")
        return cast("UploadNews", message)

    def _send(self, wants: list[Want], out: BinaryIO, progress: TransferProgress, streams: UploadStreams) -> None:
        pieces = deque(self._pieces(wants))

        def send_all(out: BinaryIO) -> PieceSender:
            sender = self._sender(self._contents, out, progress)
            sender.send_all(pieces)
            return sender

        streams.use(lambda out: send_all(out).end())
        try:
            with pieces_to(self._session, out) as pieces_out:
                sender = send_all(pieces_out)
                streams.finish()
                # If a stream has taken a piece and not sent it, the cluster asks for it again.
                sender.end()
        finally:
            # Streams that go on have nothing left to do.
            pieces.clear()

    def _pieces(self, wants: list[Want]) -> Iterator[Piece]:
        for key, ranges in wants:
            content = self._contents[key]
            most = TAGGED_PIECE_BYTES if content.is_tagged else PIECE_BYTES
            for start, end in ranges:
                for at in range(start, end, most):
                    yield Piece(key, at, min(end, at + most))
