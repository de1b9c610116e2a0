"""What can be done on a cluster: stage, submit, look, read, cancel, collect."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pathspec

from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterError,
    GpuClusterSetupError,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission, submit_request
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.sources import Source, UploadSource
from airflow_provider_gpu_cluster.transfer.collector import Collecting
from airflow_provider_gpu_cluster.transfer.download import CollectedFile
from airflow_provider_gpu_cluster.transfer.upload import Line, Upload

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_gpu_cluster.gpu_run.protocol.events import LaunchedEvent
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import Input
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import (
        Capacity,
        Check,
        GcReport,
        Handle,
        LogReply,
        LogsReply,
        StageReply,
        StatusReply,
        SubmitReply,
    )
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import (
        Acknowledgement,
        Asker,
        CancelRequest,
        GcRequest,
        LogRequest,
        LogsRequest,
        StageRequest,
        StatusRequest,
        SubmitRequest,
    )
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments

log = logging.getLogger(__name__)

_STAGE_ROUNDS = 3


@dataclass(frozen=True)
class NotedChunk(LogChunk):
    """
    A piece of a job's output, with what the reader has noted where it begins.

    :param note: JSON values; None when nothing was noted there.
    """

    note: dict[str, Any] | None


class Cluster(Session):
    """
    A cluster, through one SSH session. Use it from one thread at a time.

    All methods raise :class:`GpuClusterConnectionError` when the cluster stays out of reach,
    :class:`GpuClusterSetupError` when it cannot run jobs at all, and what else each says.
    """

    def check(self) -> Check:
        """Look whether the cluster can run jobs, and return what was found. Gives up at once when out of reach."""
        patience, self.patience_s = self.patience_s, 0.0
        try:
            found: Check = self._call("install-check", {})
            return found
        finally:
            self.patience_s = patience

    def capacity(self) -> Capacity:
        """Return the cluster's GPUs, with who has them, and how many jobs wait."""
        capacity: Capacity = self._call("capacity", {})
        return capacity

    def stage(self, job_id: str, sources: Sequence[Source], *, record: Asker) -> JobHandle:
        """
        Make a job's directory and bring its inputs there, without launching anything.

        :param record: who asks.
        :raises StagingError: a source could not be brought there.
        """
        request: StageRequest = {"job_id": job_id, "inputs": self._described(sources), "record": record}
        reply: StageReply = self._with_uploads("stage", request, sources)
        return self._handle(reply["handle"])

    def submit(self, job_id: str, *, sources: Sequence[Source] | None, **asked: Unpack[LaunchArguments]) -> Submission:
        """
        Launch a job, or find it launched; see :func:`.gpu_run.jobs.submission.submit` for which.

        Of an array, that goes for each element by itself.

        :param sources: its inputs; None when they are staged.
        :param asked: the rest of what :func:`.submit_request` takes.
        :raises StagingError: a source could not be brought there.
        :raises LaunchError: the cluster cannot run it.
        """
        inputs = None if sources is None else self._described(sources)
        request = submit_request(job_id, inputs=inputs, **asked)
        reply: SubmitReply = self._with_uploads("submit", request, sources or ())
        return self.submission_of(reply)

    def launch(self, request: SubmitRequest) -> Submission:
        """Do the same with a request from :func:`.submit_request` that needs no files from here."""
        reply: SubmitReply = self._call("submit", request)
        return self.submission_of(reply)

    def submission_of(self, reply: SubmitReply | LaunchedEvent) -> Submission:
        """Return what came of a submit, from the cluster's reply to it."""
        handle, status = self._handle(reply["handle"]), JobStatus.from_json(reply["status"])
        return Submission(handle, status, reply["created"], reply.get("launched", 0))

    def statuses(self, job_ids: Sequence[str], *, tail_bytes: int = 0) -> list[JobStatus]:
        """
        Return how jobs stand, in one call and in their order.

        :param tail_bytes: how much of the end of each output to bring along.
        """
        request: StatusRequest = {"job_ids": list(job_ids), "tail_bytes": tail_bytes}
        reply: StatusReply = self._call("status", request)
        return [JobStatus.from_json(status) for status in reply["jobs"]]

    def read_log(
        self,
        job_id: str,
        *,
        reader: str,
        max_bytes: int = 1 << 20,
        ack: LogPosition | None = None,
        note: Mapping[str, Any] | None = None,
        tail_bytes: int = 0,
    ) -> NotedChunk:
        """
        Return how a job stands together with the output that this reader has not acknowledged yet.

        :param reader: a name; the cluster keeps the place of each.
        :param ack: up to where the reader is done.
        :param note: JSON values for the cluster to keep together with that place.
        :param tail_bytes: how much of the end of the output to put into the status.
        """
        place = _acknowledgement(ack)
        if place is not None:
            place["note"] = note
        request: LogRequest = {
            "job_id": job_id,
            "reader": reader,
            "ack": place,
            "max_bytes": max_bytes,
            "tail_bytes": tail_bytes,
        }
        return cast(NotedChunk, self._exchange("logs", request, take=self._take_chunk))

    def read_logs(
        self, places: Mapping[str, LogPosition | None], *, reader: str, max_bytes: int = 1 << 20
    ) -> dict[str, NotedChunk]:
        """
        Do the same for several jobs in one call.

        :param places: of each job up to where the reader is done; None when it does not know.
        :param max_bytes: how much output to return of all of them together.
        """
        jobs: list[LogRequest] = [
            {"job_id": job_id, "reader": reader, "ack": _acknowledgement(place)} for job_id, place in places.items()
        ]

        def take(reply: LogsReply, stream: BinaryIO) -> dict[str, NotedChunk]:
            chunks = [self._take_chunk(one, stream) for one in reply["jobs"]]
            return dict(zip(places, chunks, strict=True))

        request: LogsRequest = {"jobs": jobs, "max_bytes": max_bytes}
        return cast("dict[str, NotedChunk]", self._exchange("logs", request, take=take))

    def _take_chunk(self, reply: LogReply, stream: BinaryIO) -> NotedChunk:
        data = stream.read(reply["length"])
        if len(data) != reply["length"]:
            raise self.broken("the connection broke while the log was read")
        start = LogPosition(reply["attempt"], reply["offset"])
        status = JobStatus.from_json(reply["status"])
        return NotedChunk(status, start, data, reply["log_bytes"], reply.get("note"))

    def cancel(self, job_ids: Sequence[str], *, requested_by: str, wait_s: float = 0) -> list[JobStatus]:
        """
        Cancel jobs; those that have ended are left as they are.

        :param requested_by: who asks, for the record.
        :param wait_s: how long to wait for them to be gone, in seconds.
        """
        request: CancelRequest = {"job_ids": list(job_ids), "by": requested_by, "wait_s": wait_s}
        reply: StatusReply = self._call("cancel", request)
        return [JobStatus.from_json(status) for status in reply["jobs"]]

    def collect(
        self, job_id: str, sink: Sink, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> list[CollectedFile]:
        """
        Bring a job's outputs home, each checked against its checksum. What is there already and the same stays.

        Those of an array come into a folder for each element, by its index.

        :param include: patterns in the language of ``.gitignore``, relative to ``outputs``; empty for everything.
        :param exclude: patterns of what to leave.
        :raises CollectError: a wanted output leaves its folder, is no file, or did not arrive whole.
        :raises NoSpaceError: there is no room for them; what has arrived when a disk becomes full is kept.
        """
        is_wanted = partial(_is_wanted, include=include, exclude=exclude)
        with Collecting(self, job_id, sink, is_wanted, self._stop_if_interrupted) as collecting:
            while not collecting.is_done:
                self._exchange("send", collecting.request, converse=collecting.converse, continues=collecting.has_begun)
        return collecting.files

    def collect_garbage(self, older_than_s: float | None = None, *, dry_run: bool = False) -> GcReport:
        """
        Remove jobs that ended long ago, and what was kept for jobs and none was given since. Nothing in use goes.

        :param older_than_s: for how long they must have been of no use, in seconds; by default the connection's
            ``retention``.
        :param dry_run: remove nothing, and report what would be.
        :return: what was removed, and what could not be; see :func:`.gpu_run.gc.collection.collect_garbage`.
        :raises GpuClusterSetupError: no time is given, here or in the connection.
        """
        if older_than_s is None:
            older_than_s = self.settings.retention_s
        if older_than_s is None:
            raise GpuClusterSetupError(
                f"{self._where()}: nothing says how old what is to be removed must be; set 'retention' in the "
                "connection (such as 14d), or give older_than"
            )
        request: GcRequest = {"older_than_s": older_than_s, "dry_run": dry_run}
        report: GcReport = self._call("gc", request)
        return report

    def _described(self, sources: Sequence[Source]) -> list[Input]:
        """Return inputs as the remote program takes them. Files are read for that while the connection is opened."""
        if not any(isinstance(source, UploadSource) for source in sources):
            return [source.to_json() for source in sources]
        opening = threading.Thread(target=self._open_quietly, daemon=True)
        opening.start()
        try:
            return [source.to_json() for source in sources]
        finally:
            opening.join()

    def _open_quietly(self) -> None:
        # Whoever needs the connection next tries again, and says what is wrong.
        with contextlib.suppress(GpuClusterError):
            self.open()

    def _with_uploads(self, verb: str, request: StageRequest | SubmitRequest, sources: Sequence[Source]) -> Any:
        """Call a verb that may ask for inputs first, and send those it asks for."""
        upload = Upload(sources, self._line())
        for _ in range(_STAGE_ROUNDS):
            reply: StageReply | SubmitReply | None = None
            while reply is None:
                reply = self._exchange(verb, request, converse=upload.converse, continues=upload.has_begun)
            if not reply.get("needs"):
                return reply
        raise GpuClusterError(f"{self._where()}: inputs of {request['job_id']} were sent and are missing again")

    def _line(self) -> Line:
        return Line(
            name=self.settings.name,
            lane=partial(self.lane, "fill"),
            round_trip_s=lambda: self.round_trip_s,
            check=self._stop_if_interrupted,
            error_of=self.error_of,
            pieces_to=self.pieces_to,
        )

    def _handle(self, reply: Handle) -> JobHandle:
        return JobHandle(gpu_cluster_conn_id=self.settings.conn_id, **reply)


def _acknowledgement(place: LogPosition | None) -> Acknowledgement | None:
    return None if place is None else {"attempt": place.attempt, "offset": place.offset}


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or _matches(path, tuple(include))) and not _matches(path, tuple(exclude))


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return bool(patterns) and _spec(patterns).match_file(path)


@lru_cache(maxsize=8)
def _spec(patterns: tuple[str, ...]) -> pathspec.GitIgnoreSpec:
    try:
        return pathspec.GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise InvalidJobError(f"{list(patterns)} are no patterns: {error}") from error
