"""The operations on a cluster: stage, submit, get statuses, read logs, cancel, collect."""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache, partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import paramiko
import pathspec

from airflow_provider_gpu_cluster.connection.connection import Connection
from airflow_provider_gpu_cluster.connection.reply import garbled
from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterProtocolError,
    GpuClusterSetupError,
    InvalidJobError,
)
from airflow_provider_gpu_cluster.gpu_run.protocol import replies
from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import BY_USER
from airflow_provider_gpu_cluster.gpu_run.protocol.moments import in_utc
from airflow_provider_gpu_cluster.jobs.handle import MAX_ARRAY_SIZE, JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission, submit_request
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition
from airflow_provider_gpu_cluster.sinks import Sink
from airflow_provider_gpu_cluster.sources import Source, UploadSource
from airflow_provider_gpu_cluster.stats import metrics
from airflow_provider_gpu_cluster.stats.jobs import count_all, count_launch
from airflow_provider_gpu_cluster.stats.sending import count, time
from airflow_provider_gpu_cluster.transfer.carrying import Carried, CarriedSource, Relay, SourceBroken, job_to_carry
from airflow_provider_gpu_cluster.transfer.collector import Collector
from airflow_provider_gpu_cluster.transfer.download import CollectedFile
from airflow_provider_gpu_cluster.transfer.still_at_work import StillAtWork
from airflow_provider_gpu_cluster.transfer.upload import Upload

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_gpu_cluster.gpu_run.protocol.acts import AuditReply, AuditRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import AppraiseReply, AppraiseRequest, JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.carrying import CarriedJob, CarryInRequest, CarryOutRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.events import LaunchedEvent
    from airflow_provider_gpu_cluster.gpu_run.protocol.following import LookOnJob, LookOnReply, LookOnRequest, Seen
    from airflow_provider_gpu_cluster.gpu_run.protocol.inputs import Input
    from airflow_provider_gpu_cluster.gpu_run.protocol.job_list import JobsReply, JobsRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import UsageReply, UsageRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice, NotifyWhen
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import (
        Placement,
        PlaceReply,
        PlaceRequest,
        Renewal,
        RenewReply,
        RenewRequest,
    )
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import (
        Capacity,
        Check,
        GcReport,
        Handle,
        InterruptReply,
        LogReply,
        LogsReply,
        StageReply,
        StatusReply,
        SubmitReply,
        ToldReply,
    )
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import (
        Acknowledgement,
        Asker,
        Caller,
        CancelRequest,
        GcRequest,
        InterruptRequest,
        LogRequest,
        LogsRequest,
        ResubmitRequest,
        StageRequest,
        StatusRequest,
        SubmitRequest,
        ToldRequest,
    )
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.gpu_run.protocol.status import Status
    from airflow_provider_gpu_cluster.gpu_run.protocol.totals import TotalsReply
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments

MOST_LISTED_JOBS = 10_000
_STAGE_ROUNDS = 3
_MOST_IDLE_ROUNDS = 5

log = logging.getLogger(__name__)


class Cluster:
    """
    A cluster, through one SSH connection. Use it from one thread at a time.

    All methods raise :class:`GpuClusterConnectionError` if the cluster stays unreachable,
    :class:`GpuClusterSetupError` if it cannot run jobs at all, and the errors that each documents.

    :param connect: opens an SSH connection, or raises an error of :mod:`.exceptions`.
    :param retry_for_s: how long to keep trying to reach the cluster, in seconds.
    :param caller: who asks, for the audit trails of jobs.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        connect: Callable[[], paramiko.SSHClient],
        *,
        retry_for_s: float = RETRY_FOR_S,
        caller: Caller | None = None,
    ) -> None:
        self.settings = settings
        self.session = Session(Connection(settings, connect), retry_for_s=retry_for_s, caller=caller)
        """Talks to the program on the cluster, for operations that the methods here do not offer."""

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def retrying_for(self, seconds: float) -> Cluster:
        """Return the same cluster over the same connection, with another time to keep trying to reach it."""
        other = copy.copy(self)
        other.session = self.session.retrying_for(seconds)
        return other

    def open(self) -> None:
        """
        Connect now, unless already connected.

        :raises GpuClusterConnectionError: the cluster cannot be reached; there is no second try.
        """
        self.session.connection.open()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self.session.connection.close()

    def is_connected(self) -> bool:
        """Return whether the connection is alive, as far as this side knows."""
        return self.session.connection.is_connected()

    def interrupt(self) -> None:
        """
        Make a call that waits for the cluster fail now, without retries. The next call works as usual.

        Safe in a signal handler.
        """
        self.session.connection.interrupt()

    @property
    def is_interrupted(self) -> bool:
        """Whether the last call was interrupted."""
        return self.session.connection.is_interrupted

    def check(self) -> Check:
        """Check whether the cluster can run jobs, and return the findings. Does not retry an unreachable cluster."""
        found: Check = self.session.retrying_for(0).call("install-check", {})
        return found

    def look_on(self, jobs: Sequence[LookOnJob]) -> list[Seen]:
        """Return jobs as they are now, and what is new in their files, without counting as somebody who asks."""
        request: LookOnRequest = {"jobs": list(jobs)}
        reply: LookOnReply = self.session.call("look-on", request)
        if len(reply["jobs"]) != len(jobs):
            raise self._garbled("look-on", "it is not about the jobs that were asked for")
        return reply["jobs"]

    def capacity(self) -> Capacity:
        """Return the cluster's GPUs, who holds them, and how many jobs wait."""
        capacity: Capacity = self.session.call("capacity", {})
        return capacity

    def appraise(self, jobs: Sequence[JobToAppraise]) -> AppraiseReply:
        """
        Return of each job whether it fits the cluster, when it could start there, and what has to be sent for that.

        :param jobs: at most :data:`.gpu_run.protocol.appraisal.MOST_JOBS`.
        :raises InvalidJobError: a value of one of them is not valid.
        """
        request: AppraiseRequest = {"jobs": list(jobs)}
        reply: AppraiseReply = self.session.call("appraise", request)
        if len(reply["jobs"]) != len(jobs):
            raise self._garbled("appraise", "it is not about the jobs that were asked for")
        for appraisal in reply["jobs"]:
            for name in ("why_not", "remark"):
                if name in appraisal:
                    appraisal[name] = cleaned(appraisal[name])
        return reply

    def totals(self) -> TotalsReply:
        """Return what the ledger of the cluster adds up to, and how the cluster stands now."""
        totals: TotalsReply = self.session.call("totals", {})
        return totals

    def stage(self, job_id: str, sources: Sequence[Source], *, record: Asker) -> JobHandle:
        """
        Create a job's directory and copy its inputs there, without launching the job.

        :param record: who asks.
        :raises StagingError: a source could not be copied.
        """
        request: StageRequest = {"job_id": job_id, "inputs": self._described(sources), "record": record}
        reply: StageReply = self._with_uploads("stage", request, sources)
        return self._handle(reply["handle"], job_id)

    def submit(self, job_id: str, *, sources: Sequence[Source] | None, **asked: Unpack[LaunchArguments]) -> Submission:
        """
        Launch a job, or find it already launched; see :func:`.gpu_run.jobs.submission.submit`.

        For an array, this applies to each element separately.

        :param sources: its inputs; None if they are already staged.
        :param asked: the other parameters of :func:`.submit_request`.
        :raises StagingError: a source could not be copied.
        :raises LaunchError: the cluster cannot run it.
        """
        inputs = None if sources is None else self._described(sources)
        request = submit_request(job_id, inputs=inputs, **asked)
        reply: SubmitReply = self._with_uploads("submit", request, sources or ())
        return self.submission_of(reply, job_id, request["record"])

    def launch(self, request: SubmitRequest) -> Submission:
        """Launch a job from a request of :func:`.submit_request` that needs no files from this machine."""
        reply: SubmitReply = self.session.call("submit", request)
        return self.submission_of(reply, request["job_id"], request["record"])

    def resubmit(self, request: ResubmitRequest) -> Submission:
        """
        Start the next attempt of a job that has ended badly, or find what an earlier request has started.

        For an array, this applies to each element separately.

        :raises InvalidJobError: an environment variable of the job is not given.
        :raises LaunchError: the cluster cannot run it.
        """
        reply: SubmitReply = self.session.call("resubmit", request)
        return self.submission_of(reply, request["job_id"])

    def submission_of(self, reply: SubmitReply | LaunchedEvent, job_id: str, asker: Asker | None = None) -> Submission:
        """
        Return the result of a submit, from the cluster's reply.

        :param job_id: the job that was submitted.
        :param asker: who has asked for it.
        :raises GpuClusterProtocolError: the reply is about another job, or incomplete.
        """
        if not {"handle", "status", "created"} <= reply.keys():
            raise self._garbled("submit", "handle, status or created is missing or not what it should be")
        handle, (status,) = self._handle(reply["handle"], job_id), self._statuses_of([reply["status"]], [job_id])
        launched = reply.get("launched", 0)
        count_launch(self.settings.conn_id, asker, launched=launched or int(reply["created"]))
        return Submission(handle, status, reply["created"], launched)

    def statuses(
        self,
        job_ids: Sequence[str],
        *,
        tail_bytes: int = 0,
        whole_tail: bool = False,
        notify: Mapping[str, NotifyWhen] | None = None,
    ) -> list[JobStatus]:
        """
        Return the statuses of jobs, in the given order, from one call.

        :param tail_bytes: how much of the end of each output to include, in bytes.
        :param whole_tail: of all output in its order; otherwise of stderr alone, if it has any.
        :param notify: by job, when the caller wants to tell people about it; it has to tell what :attr:`.JobStatus.due`
            says.
        """
        request: StatusRequest = {"job_ids": list(job_ids), "tail_bytes": tail_bytes, "whole_tail": whole_tail}
        if notify:
            request["notify"] = dict(notify)
        reply: StatusReply = self.session.call("status", request)
        count_all(self.settings.conn_id, reply.get("counted"))
        return self._statuses_of(reply["jobs"], job_ids, tail_bytes)

    def note_told(self, job_id: str, notice: Notice) -> None:
        """Note that people were told about something that was due, so that nobody tells it again."""
        request: ToldRequest = {"job_id": job_id, "event": notice["event"], "attempt": notice["attempt"]}
        self.session.call("told", request)

    def take_to_tell(self, job_id: str, event: str, attempt: int) -> int:
        """
        Become the one who tells people of an event; it is to be told now, and then noted by :meth:`note_told`.

        :return: how often somebody was to tell it, with this time; 0 if somebody else tells it or has told it.
        """
        request: ToldRequest = {"job_id": job_id, "event": event, "attempt": attempt, "take": True}
        reply: ToldReply = self.session.call("told", request)
        return reply["tries"]

    def read_log(
        self,
        job_id: str,
        *,
        reader: str,
        max_bytes: int = 1 << 20,
        ack: LogPosition | None = None,
        note: Mapping[str, Any] | None = None,
        tail_bytes: int = 0,
        notify: NotifyWhen | None = None,
    ) -> LogChunk:
        """
        Return a job's status together with the output that this reader has not acknowledged yet.

        :param reader: a name, under which the cluster remembers the reader's place.
        :param ack: the place up to which the reader has processed the output.
        :param note: JSON values for the cluster to store with that place.
        :param tail_bytes: how much of the end of the output to put into the status, in bytes.
        :param notify: see :meth:`statuses`.
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
        if notify:
            request["notify"] = notify
        return self.session.read("logs", request, partial(self._take_chunk, job_id, max_bytes, tail_bytes))

    def read_logs(
        self,
        places: Mapping[str, LogPosition | None],
        *,
        reader: str,
        max_bytes: int = 1 << 20,
        notify: NotifyWhen | None = None,
    ) -> dict[str, LogChunk]:
        """
        Do the same for several jobs in one call.

        :param places: for each job, the place up to which the reader has processed its output; None if unknown.
        :param max_bytes: how much output to return, of all jobs together.
        :param notify: see :meth:`statuses`; of each of them.
        """
        jobs: list[LogRequest] = [
            {"job_id": job_id, "reader": reader, "ack": _acknowledgement(place)} for job_id, place in places.items()
        ]
        if notify:
            for job in jobs:
                job["notify"] = notify

        def take(reply: LogsReply, stream: BinaryIO) -> dict[str, LogChunk]:
            rows = reply.get("jobs")
            if not isinstance(rows, list) or len(rows) != len(places):
                raise self._garbled("logs", "it is not about the jobs that were asked for")
            return {
                job_id: self._take_chunk(job_id, max_bytes, 0, one, stream)
                for job_id, one in zip(places, rows, strict=True)
            }

        request: LogsRequest = {"jobs": jobs, "max_bytes": max_bytes}
        return self.session.read("logs", request, take)

    def _take_chunk(self, job_id: str, max_bytes: int, tail_bytes: int, value: LogReply, stream: BinaryIO) -> LogChunk:
        reply: LogReply = checked(value, replies.LogReply)
        numbers = (reply["attempt"], reply["offset"], reply["length"], reply["log_bytes"])
        if min(numbers) < 0 or reply["length"] > max_bytes:
            raise self._garbled("logs", f"{numbers} are no attempt, offset, length and size of a log")
        count_all(self.settings.conn_id, reply.get("counted"))
        (status,) = self._statuses_of([reply["status"]], [job_id], tail_bytes)
        data = stream.read(reply["length"])
        if len(data) != reply["length"]:
            raise self.session.broken("the connection broke while the log was read")
        return LogChunk(
            LogPosition(reply["attempt"], reply["offset"]), data, reply["log_bytes"], status, reply.get("note")
        )

    def _statuses_of(self, values: Sequence[Status], job_ids: Sequence[str], tail_bytes: int = 0) -> list[JobStatus]:
        """Return the statuses of these jobs; what the cluster says of others is not believed."""
        if [value["job_id"] for value in values] != list(job_ids):
            raise self._garbled("status", "it is not about the jobs that were asked for")
        for value in values:
            # One character takes a byte at least.
            value["log_tail"] = value.get("log_tail", "")[-tail_bytes:] if tail_bytes else ""
        return [JobStatus.from_json(value) for value in values]

    def _garbled(self, verb: str, why: str) -> GpuClusterProtocolError:
        return garbled(self.settings.where, f"gpu-run {verb}", why)

    def cancel(
        self,
        job_ids: Sequence[str],
        *,
        requested_by: str,
        wait_s: float = 0,
        request_keys: Mapping[str, str] | None = None,
    ) -> list[JobStatus]:
        """
        Cancel jobs; jobs that have ended are not changed.

        :param requested_by: who asks, for the record.
        :param wait_s: how long to wait for them to end, in seconds.
        :param request_keys: by job, the key of a request to launch it that may still be on its way; it then launches
            nothing.
        """
        request: CancelRequest = {"job_ids": list(job_ids), "by": requested_by, "wait_s": wait_s}
        if request_keys:
            request["request_keys"] = dict(request_keys)
        reply: StatusReply = self.session.call("cancel", request)
        count_all(self.settings.conn_id, reply.get("counted"))
        return self._statuses_of(reply["jobs"], job_ids)

    def place(
        self,
        job_id: str,
        placement: Placement,
        kind: str,
        *,
        spec: Spec | None = None,
        if_free: bool = False,
        by: str = "",
    ) -> PlaceReply:
        """
        Tell this cluster which of several is to have a job, and hear whether it has it; see
        :mod:`.gpu_run.jobs.placing`.

        :param kind: one of the words of :mod:`.gpu_run.protocol.placement`.
        :param spec: for a claim, what the job needs.
        :param if_free: claim only if it could start now, beside what is promised to others.
        :param by: in words, who asks, for the job's record.
        """
        request: PlaceRequest = {"job_id": job_id, "placement": placement, "kind": kind}
        if spec is not None:
            request["spec"] = spec
        if if_free:
            request["if_free"] = True
        if by:
            request["by"] = by
        reply: PlaceReply = self.session.call("place", request)
        return reply

    def renew(self, jobs: Sequence[Renewal]) -> RenewReply:
        """Say that jobs still are to run here; see :mod:`.gpu_run.jobs.renewing`."""
        request: RenewRequest = {"jobs": list(jobs)}
        reply: RenewReply = self.session.call("renew", request)
        if len(reply["jobs"]) != len(jobs):
            raise self._garbled("renew", "it is not about the jobs that were asked for")
        return reply

    def jobs(self, most: int = MOST_LISTED_JOBS) -> JobsReply:
        """
        Return the jobs of this cluster that wait or run, and who has launched each.

        :param most: how many to return.
        """
        request: JobsRequest = {"most": most}
        reply: JobsReply = self.session.call("jobs", request)
        return reply

    def usage(self, *, since: datetime | None = None, until: datetime | None = None, by: str = BY_USER) -> UsageReply:
        """
        Return what the jobs have used that ended in a time, and what was transferred in it.

        :param since: the first moment, with its time zone; None begins with the first job.
        :param until: the first moment that does not belong to it, likewise; None ends with the last job.
        :param by: what to add up by: ``user``, ``dag``, ``task``, ``day``, ``month`` or ``reason``.
        """
        request: UsageRequest = {"since": _moment(since), "until": _moment(until), "by": by}
        reply: UsageReply = self.session.call("usage", request)
        return reply

    def interrupt_job(self, job_id: str, *, kind: str, requested_by: str, name: str | None = None) -> str:
        """
        Interrupt a running job as the real thing would, and return what was done, as a sentence.

        :param kind: ``preempted``, ``time_limit`` or ``checkpoint``.
        :param requested_by: who asks, for the record.
        :param name: unique to this interruption, which is carried out once, however often it is asked for.
        :raises LaunchError: there is no such job, or it does not run (:class:`JobConflictError`).
        :raises InvalidJobError: it is an array, or there is no such interruption.
        """
        name = name or uuid.uuid4().hex
        request: InterruptRequest = {"job_id": job_id, "id": name, "kind": kind, "by": requested_by}
        reply: InterruptReply = self.session.call("interrupt", request)
        return cleaned(reply["message"])

    def audit(self, job_id: str) -> AuditReply:
        """
        Return who has done what with a job, from where, and when.

        :raises LaunchError: the cluster knows no such job, and its ledger does not either.
        """
        request: AuditRequest = {"job_id": job_id}
        reply: AuditReply = self.session.call("audit", request)
        for line in reply["acts"]:
            for name, value in line.items():
                if isinstance(value, str):
                    line[name] = cleaned(value)  # type: ignore[literal-required]
        return reply

    def collect(
        self,
        job_id: str,
        sink: Sink,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        part_of: tuple[str, int] | None = None,
    ) -> list[CollectedFile]:
        """
        Download a job's outputs, each checked against its checksum. Identical files at the destination are kept.

        The outputs of an array go into one folder per element, named after its index.

        :param include: patterns in the syntax of ``.gitignore``, relative to ``outputs``; empty for everything.
        :param exclude: patterns of outputs to leave on the cluster.
        :param part_of: for an array that is a part of one on several clusters: the whole, and the index there of the
            first of these elements; the folders are then named after the indexes in the whole.
        :raises CollectError: a wanted output leads out of its folder, is not a file, or did not arrive whole.
        :raises NoSpaceError: there is not enough space; if a disk fills up later, what has arrived is kept.
        """
        is_wanted = partial(_is_wanted, include=include, exclude=exclude)
        began, tags = monotonic(), {"conn_id": self.settings.conn_id}
        with Collector(self.session, job_id, sink, is_wanted, part_of=part_of) as collector:
            try:
                while not collector.is_done:
                    self.session.converse("send", collector.request, collector.converse, continues=collector.has_begun)
            finally:
                count(metrics.DOWNLOAD_BYTES, tags, collector.received_bytes)
        if collector.received_bytes:
            time(metrics.DOWNLOAD_DURATION, tags, monotonic() - began)
        return collector.files

    def to_carry(self, job_id: str, *, with_inputs: bool = False) -> CarriedJob:
        """
        Return how much a job would bring along to another cluster: ``files`` and ``bytes``.

        :param with_inputs: with its code, data and models.
        :raises CannotCarryError: not everything can be brought along.
        """
        return job_to_carry(
            self.session, {"job_id": job_id, "with_inputs": with_inputs, "without_checksums": True, "list": True}
        )

    def carry_to(self, other: Cluster, job_id: str, *, record: Asker, with_inputs: bool = False) -> Carried:
        """
        Bring a job that has ended here, or was taken back, to another cluster, where it is then launched.

        It brings along its outputs, and what its next attempt goes on with: the attempt's number, and the recoveries
        that are used up. Nothing is deleted here. What has arrived counts if this is called again.

        :param record: who asks for the job.
        :param with_inputs: with its code, data and models, for a job that was staged.
        :raises CannotCarryError: not everything can be brought along; nothing was.
        :raises ChecksumError: a file has changed, or did not arrive as it was sent.
        :raises NoSpaceError: there is not enough space on the other cluster.
        """
        began, name = monotonic(), uuid.uuid4().hex
        asked: CarryOutRequest = {
            "job_id": job_id,
            "with_inputs": with_inputs,
            "to": other.settings.conn_id,
            "id": name,
        }
        sent, idle_rounds = 0, 0
        while True:
            job = job_to_carry(self.session, asked)
            sources = [CarriedSource.of(folder) for folder in job["folders"]]
            relay = Relay(self.session, job_id)
            upload = Upload(sources, other.session, relay.sender)
            request: CarryInRequest = {
                "job_id": job_id,
                "record": record,
                "inputs": [source.to_json() for source in sources],
                "linked": job["linked"],
                "continuation": job["continuation"],
                "origin": self.settings.conn_id,
                "id": name,
                "is_staged": with_inputs,
            }
            try:
                other._converse("carry-in", request, upload)
                return Carried(job["files"], job["bytes"], sent + upload.sent_bytes, monotonic() - began)
            except SourceBroken as error:
                # The next round connects anew, for as long as any call tries to.
                self.session.connection.close()
                idle_rounds = 0 if upload.sent_bytes else idle_rounds + 1
                if idle_rounds >= _MOST_IDLE_ROUNDS:
                    raise GpuClusterConnectionError(str(error)) from error
                log.info("connection to %s broke, going on: %s", self.settings.name, error)
            finally:
                sent += upload.sent_bytes

    def collect_garbage(self, older_than_s: float | None = None, *, dry_run: bool = False) -> GcReport:
        """
        Remove jobs that ended long ago, and cached files that no job has used since. Nothing in use is removed.

        :param older_than_s: how long they must have been unused, in seconds; by default the connection's
            ``retention``.
        :param dry_run: remove nothing, and report what would be removed.
        :return: what was removed, and what could not be; see :func:`.gpu_run.gc.collection.collect_garbage`.
        :raises GpuClusterSetupError: neither this call nor the connection gives a duration.
        """
        if older_than_s is None:
            older_than_s = self.settings.retention_s
        if older_than_s is None:
            raise GpuClusterSetupError(
                f"{self.settings.where}: no age is given after which to remove jobs and files; set 'retention' in the "
                "connection (such as 14d), or give older_than"
            )
        request: GcRequest = {"older_than_s": older_than_s, "dry_run": dry_run}
        report: GcReport = self.session.call("gc", request)
        return report

    def _described(self, sources: Sequence[Source]) -> list[Input]:
        """Return inputs in the remote program's form. Files are read while the connection is opened."""
        if not any(isinstance(source, UploadSource) for source in sources):
            return [source.to_json() for source in sources]
        opening = threading.Thread(target=self._open_quietly, daemon=True)
        opening.start()
        try:
            with StillAtWork(f"still reading the files to send to {self.settings.name}"):
                return [source.to_json() for source in sources]
        finally:
            opening.join()

    def _open_quietly(self) -> None:
        # The next call that needs the connection tries again, and raises the error.
        with contextlib.suppress(GpuClusterError):
            self.open()

    def _with_uploads(self, verb: str, request: StageRequest | SubmitRequest, sources: Sequence[Source]) -> Any:
        """Call a verb that may first ask for inputs, and send the inputs that it asks for."""
        upload = Upload(sources, self.session)
        if not sources:
            return self._converse(verb, request, upload)
        with StillAtWork(f"{self.settings.name} is still putting {_files_of(sources)} in place"):
            return self._converse(verb, request, upload)

    def _converse(self, verb: str, request: StageRequest | SubmitRequest | CarryInRequest, upload: Upload) -> Any:
        began, tags = monotonic(), {"conn_id": self.settings.conn_id}
        try:
            return self._converse_to_the_end(verb, request, upload)
        finally:
            if upload.has_begun:
                count(metrics.UPLOAD_BYTES, tags, upload.sent_bytes)
                time(metrics.UPLOAD_DURATION, tags, monotonic() - began)

    def _converse_to_the_end(
        self, verb: str, request: StageRequest | SubmitRequest | CarryInRequest, upload: Upload
    ) -> Any:
        for _ in range(_STAGE_ROUNDS):
            reply: StageReply | SubmitReply | None = None
            while reply is None:
                reply = self.session.converse(verb, lambda: request, upload.converse, continues=upload.has_begun)
            try:
                reply = checked(reply, replies.SubmitReply if verb == "submit" else replies.StageReply)
            except WrongType as error:
                raise self._garbled(verb, str(error)) from error
            assert reply is not None
            if not reply.get("needs"):
                if "handle" not in reply:
                    raise self._garbled(verb, "it has no handle")
                return reply
        raise GpuClusterError(f"{self.settings.where}: inputs of {request['job_id']} are missing after they were sent")

    def _handle(self, reply: Handle, job_id: str) -> JobHandle:
        if reply["job_id"] != job_id or not 0 < reply.get("array_size", 1) <= MAX_ARRAY_SIZE:
            raise self._garbled("submit", "its handle is not one of the job that was asked for")
        known = {item.name for item in fields(JobHandle)}
        values: dict[str, Any] = {name: value for name, value in reply.items() if name in known}
        return JobHandle(**{**values, "gpu_cluster_conn_id": self.settings.conn_id})


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else in_utc(moment).isoformat(timespec="milliseconds")


def _files_of(sources: Sequence[Source]) -> str:
    # A manifest that nobody has needed yet is not read for this.
    read = (source for source in sources if isinstance(source, UploadSource) and "manifest" in vars(source))
    count = sum(len(source.manifest) for source in read)
    return f"{count:,} files and folders" if count else "its inputs"


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
