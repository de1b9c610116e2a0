"""Collects a job's outputs: the conversation with the cluster, over one connection after another."""

from __future__ import annotations

import contextlib
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_gpu_cluster.connection.channel import BREAKS
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import SFTP
from airflow_provider_gpu_cluster.connection.wire_types import checked
from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterConnectionError, GpuClusterProtocolError
from airflow_provider_gpu_cluster.files.checksums import Checksums, open_checksums
from airflow_provider_gpu_cluster.gpu_run.protocol import lines
from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import Writer
from airflow_provider_gpu_cluster.jobs.handle import element_id
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.sinks.claims import FilesClaim, claim
from airflow_provider_gpu_cluster.sinks.part_sink import PartSink
from airflow_provider_gpu_cluster.transfer.download import CollectedFile
from airflow_provider_gpu_cluster.transfer.download_streams import DownloadStreams
from airflow_provider_gpu_cluster.transfer.file_stream import is_entry
from airflow_provider_gpu_cluster.transfer.progress import TransferProgress
from airflow_provider_gpu_cluster.transfer.sftp_download import SftpDownload
from airflow_provider_gpu_cluster.transfer.stream_download import StreamDownload
from airflow_provider_gpu_cluster.transfer.streams import streams_for

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import CollectedNote, OutputEntry
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import SendReply
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SendRequest

log = logging.getLogger(__name__)


class Collector:
    """
    Carries out the verb ``send``, over as many connections as that takes::

        with Collector(session, "job", sink, is_wanted) as collector:
            while not collector.is_done:
                session.converse("send", collector.request, collector.converse)

    :param session: its connection is the one on which :meth:`converse` speaks.
    :param is_wanted: chooses paths below a job's ``outputs/``.
    :param part_of: see :meth:`.Cluster.collect`.
    """

    def __init__(
        self,
        session: Session,
        job_id: str,
        sink: Sink,
        is_wanted: Callable[[str], bool],
        *,
        part_of: tuple[str, int] | None = None,
    ) -> None:
        self._session = session
        self._job_id = job_id
        self._whole_id, first = part_of or (job_id, 0)
        self._sink: Sink = PartSink(sink, first) if first else sink
        self._whole_sink = sink
        self._is_wanted = is_wanted
        self._stack = contextlib.ExitStack()
        self._download: SftpDownload | StreamDownload | None = None
        self._id = uuid.uuid4().hex

    def __enter__(self) -> Collector:
        self._checksums: Checksums = self._stack.enter_context(open_checksums())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def has_begun(self) -> bool:
        """Whether the files to collect are known."""
        return self._download is not None

    @property
    def is_done(self) -> bool:
        """Whether everything has arrived."""
        return self._download is not None and not self._download.left

    @property
    def received_bytes(self) -> int:
        """How much has come so far, in bytes, holes included."""
        return 0 if self._download is None else self._download.received

    @property
    def files(self) -> list[CollectedFile]:
        """The collected files, sorted by path."""
        collected = [] if self._download is None else self._download.collected
        files = [replace(file, path=self._place(file.path)) for file in collected]
        return sorted(files, key=lambda file: file.path)

    def _place(self, path: str) -> str:
        """Return where an output goes, in the destination."""
        return self._sink.place(path) if isinstance(self._sink, PartSink) else path

    def request(self) -> SendRequest:
        """Return the first request."""
        return {"job_id": self._job_id, "list": not self.has_begun, "id": self._id}

    def converse(self, reply: SendReply, stream: BinaryIO, out: BinaryIO) -> None:
        """
        Collect what is left. If the connection breaks after some progress, return; another connection continues.

        :raises CollectError: a wanted output leads out of its folder, is not a file, or did not arrive whole.
        :raises NoSpaceError: there is not enough space; if a disk fills up later, what has arrived is kept.
        """
        if self._download is None:
            entries, is_array = reply.get("entries"), reply.get("is_array")
            if not isinstance(entries, list) or not isinstance(is_array, bool) or not all(map(is_entry, entries)):
                raise GpuClusterProtocolError(
                    f"job {self._job_id} on {self._name}: the cluster's list of outputs is garbled"
                )
            self._is_array = is_array
            self._download = self._begin(entries, checked(reply.get("writer", {}), Writer), stream, out)
        download = self._download
        before = download.received
        try:
            while download.left:
                if isinstance(download, SftpDownload):
                    self._fetch(download, stream, out)
                else:
                    self._take(download, stream, out)
            self._tell(download.received - before, out)
        except (GpuClusterConnectionError, *BREAKS) as error:
            if download.received == before:
                raise
            log.info("connection to %s broke, resuming: %s", self._name, error)
            self._session.connection.close()

    def _tell(self, count: int, out: BinaryIO) -> None:
        """Tell the cluster, which keeps the books, how many bytes have arrived in this conversation."""
        note: CollectedNote = {"collected": count}
        with contextlib.suppress(*BREAKS):
            lines.write_line(out, note)

    def _begin(
        self, entries: list[OutputEntry], writer: Writer, stream: BinaryIO, out: BinaryIO
    ) -> SftpDownload | StreamDownload:
        wanted = [entry for entry in entries if self._is_wanted(self._locate(entry["path"])[1])]
        for entry in wanted:
            if entry["kind"] != "file":
                raise CollectError(f"job {self._job_id} on {self._name}: {_refusal(entry)}")
        mine = FilesClaim.of(self._whole_id, writer, [self._place(entry["path"]) for entry in wanted])
        if mine is not None and wanted:
            claim(self._whole_sink, mine)
        by_sftp = self._session.settings.transfer == SFTP
        download = (SftpDownload if by_sftp else StreamDownload)(self._job_id, wanted, self._sink, self._checksums)
        download.skip_present(stream, out)
        download.check_space()
        what = f"outputs of {self._job_id} from {self._name}"
        self._progress = self._stack.enter_context(TransferProgress(what, download.missing_bytes()))
        return download

    def _take(self, download: StreamDownload, stream: BinaryIO, out: BinaryIO) -> None:
        connection = self._session.connection
        count = streams_for(connection.round_trip_s, download.missing_bytes())
        request = download.request(count)
        receive_piece = partial(download.receive_piece, progress=self._progress)
        try:
            with DownloadStreams(self._job_id, download.pieces, count - 1, self._session, receive_piece):
                lines.write_line(out, request)
                download.receive(stream, self._progress, connection.stop_if_interrupted)
        finally:
            download.close_pieces()

    def _fetch(self, download: SftpDownload, stream: BinaryIO, out: BinaryIO) -> None:
        lines.write_line(out, download.request())
        download.take_checksums(stream)
        with self._session.connection.sftp() as sftp:
            download.fetch(sftp, self._path_of, self._progress)

    def _path_of(self, path: str) -> str:
        """Return the path by which SFTP knows an output."""
        return self._session.connection.sftp_path("/outputs/".join(self._locate(path)))

    def _locate(self, path: str) -> tuple[str, str]:
        """Return the job that an output belongs to, and the output's path in it."""
        if not self._is_array:
            return self._job_id, path
        index, _, path = path.partition("/")
        if not re.fullmatch("[0-9]{1,9}", index):
            raise GpuClusterProtocolError(f"job {self._job_id}: the cluster's list of outputs is garbled")
        return element_id(self._job_id, int(index)), path

    @property
    def _name(self) -> str:
        return self._session.settings.name


def _refusal(entry: OutputEntry) -> str:
    path, target = entry["path"], cleaned(entry.get("target", ""))
    why = {
        "outside": f"is a link to {target}, which lies outside the job's outputs",
        "broken": f"is a link to {target}, which does not exist",
        "special": "is no regular file",
        "unreadable": "cannot be read by the user that runs the job",
    }.get(entry["kind"], f"is of an unknown kind ({cleaned(entry['kind'])})")
    remedy = f"leave it out with exclude=[{_pattern(path)!r}]"
    return f"the output {path!r} {why}; nothing was collected. Remove it there, or {remedy}"


def _pattern(path: str) -> str:
    """Return the pattern for a path that may have wildcards in it."""
    return re.sub(r"[][*?!#\\]|\s$", r"\\\g<0>", path)
