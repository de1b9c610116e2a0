"""Polls jobs on a cluster that forbids long commands."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.notify import earliest
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition, Output
from airflow_provider_gpu_cluster.watch.errands import Launch, TellNote, VerbCall
from airflow_provider_gpu_cluster.watch.events import Acked, Failure, Place, Points, Printed
from airflow_provider_gpu_cluster.watch.subscriptions import Ack, Following, Subscription
from airflow_provider_gpu_cluster.watch.watch import TAIL_BYTES

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.following import LookOnJob
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import NotifyWhen

log = logging.getLogger(__name__)

WINDOW_BYTES = 1 << 17
# How many jobs are looked at in one call for those who look on.
_MOST_JOBS = 200


class Polling:
    """
    Delivers events of jobs to subscriptions, like :class:`.WatchChannel`, by calls that end at once.

    It makes one call for all jobs at their shortest poll interval, and one more for each job that has printed
    something for a reader.

    :param cluster: a connected cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._jobs: dict[int, _Job] = {}
        self._unseen: dict[int, _Job] = {}
        self._to_read: dict[int, _Job] = {}
        self._errands: deque[Launch | TellNote | VerbCall] = deque()
        self._looked_at = time.monotonic()

    def fileno(self) -> None:
        """Return None: nothing arrives by itself."""

    @property
    def due(self) -> float:
        """When there is something to do, by the monotonic clock."""
        is_busy = self._errands or self._unseen or self._to_read
        return -math.inf if is_busy else self._next_look

    @property
    def silent_s(self) -> float:
        """For how long the cluster was not asked, in seconds."""
        return time.monotonic() - self._looked_at

    @property
    def _next_look(self) -> float:
        intervals = (job.subscription.poll_interval_s for job in self._jobs.values())
        return self._looked_at + min(intervals, default=math.inf)

    def change(self, subscription: Subscription) -> None:
        """Take up a subscription that is new, was closed, or has acknowledged something."""
        key = subscription.key
        if subscription.closed:
            self._unseen.pop(key, None)
            self._to_read.pop(key, None)
            job = self._jobs.pop(key, None)
            if job is not None and job.has_new_ack:
                self._to_read[key] = job
        elif key not in self._jobs:
            self._jobs[key] = self._unseen[key] = _Job(subscription)
        elif self._jobs[key].reads_on:
            self._to_read[key] = self._jobs[key]

    def send(self, errand: Launch | TellNote | VerbCall) -> None:
        """Take up something to do once."""
        self._errands.append(errand)

    def work(self) -> None:
        """
        Make the next calls that are due, and deliver their results.

        :raises GpuClusterConnectionError: the connection is broken.
        """
        if self._errands:
            self._do(self._errands.popleft())
        now = time.monotonic()
        if now >= self._next_look:
            self._looked_at = now
            self._look(self._jobs)
        elif self._unseen:
            self._look(self._unseen)
        if self._to_read:
            self._to_read.pop(next(iter(self._to_read))).read(self._cluster)

    def _do(self, errand: Launch | TellNote | VerbCall) -> None:
        try:
            if isinstance(errand, Launch):
                if errand.begin():
                    errand.succeed(self._cluster.launch(errand.request))
            elif isinstance(errand, TellNote):
                self._cluster.note_told(errand.job_id, errand.notice)
                errand.succeed(None)
            elif not errand.future.done():
                errand.succeed(self._cluster.session.call(errand.verb, errand.request))
        except GpuClusterConnectionError as error:
            # Launches and notes are tried again.
            if isinstance(errand, VerbCall):
                errand.fail(error)
            raise
        except GpuClusterError as error:
            if isinstance(errand, TellNote):
                log.warning("it could not be noted that people were told about %s: %s", errand.job_id, error)
                errand.succeed(None)
            else:
                errand.fail(error)

    def _look(self, jobs: dict[int, _Job]) -> None:
        self._look_on({key: job for key, job in jobs.items() if isinstance(job.subscription, Following)})
        self._look_at({key: job for key, job in jobs.items() if not isinstance(job.subscription, Following)})

    def _look_on(self, jobs: dict[int, _Job]) -> None:
        """Look at jobs for those who only look on."""
        all_asked = [(key, job, cast("Following", job.subscription)) for key, job in jobs.items()]
        for start in range(0, len(all_asked), _MOST_JOBS):
            asked = all_asked[start : start + _MOST_JOBS]
            for key, _, _ in asked:
                self._unseen.pop(key, None)
            request: list[LookOnJob] = [{"job_id": one.job_id, "tails": one.places} for _, _, one in asked]
            for (_, job, following), seen in zip(asked, self._cluster.look_on(request), strict=True):
                job.tell(JobStatus.from_json(seen["status"]))
                if "log" in seen:
                    following.deliver(Printed(seen["log"]))
                if "progress" in seen:
                    following.deliver(Points("progress", seen["progress"]))
                if "usage" in seen:
                    following.deliver(Points("usage", seen["usage"]))

    def _look_at(self, jobs: dict[int, _Job]) -> None:
        if not jobs:
            return
        asked = {key: (job, job.subscription.job_id) for key, job in jobs.items()}
        notify: dict[str, NotifyWhen] = {}
        for job, job_id in asked.values():
            if job.subscription.when:
                notify[job_id] = earliest(notify.get(job_id, {}), job.subscription.when)
        found = self._statuses([job_id for _, job_id in asked.values()], notify=notify)
        due = {job_id: status.due for job_id, status in found.items() if status.due}
        ended_badly = [
            job_id
            for job, job_id in asked.values()
            if found[job_id].final and found[job_id].state is not JobState.SUCCEEDED and job.is_news(found[job_id])
        ]
        if ended_badly:
            found.update(self._statuses(ended_badly, tail_bytes=TAIL_BYTES))
        for key, (job, job_id) in asked.items():
            self._unseen.pop(key, None)
            # One of them tells it.
            mine = due.pop(job_id, ()) if job.subscription.when else ()
            job.tell(replace(found[job_id], due=mine))
            if job.wants_read:
                self._to_read[key] = job

    def _statuses(
        self, job_ids: list[str], *, tail_bytes: int = 0, notify: dict[str, NotifyWhen] | None = None
    ) -> dict[str, JobStatus]:
        found = self._cluster.statuses(list(dict.fromkeys(job_ids)), tail_bytes=tail_bytes, notify=notify)
        return {status.job_id: status for status in found}


class _Job:
    """What was delivered for one job."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self._status: JobStatus | None = None
        self._start: LogPosition | None = None
        self._delivered = 0
        self._log_bytes = 0
        self._acked: Ack | None = None

    def is_news(self, status: JobStatus) -> bool:
        """Return whether something relevant has changed."""
        return self._status is None or _matter(status) != _matter(self._status)

    def tell(self, status: JobStatus) -> None:
        """Deliver the job's status, if it has changed."""
        is_news = self.is_news(status) or bool(status.due)
        self._status = status
        self._log_bytes = status.log_bytes
        if is_news:
            self.subscription.deliver(status)

    @property
    def wants_read(self) -> bool:
        """Whether the reader's place must be fetched or moved, or there is output that may be delivered."""
        if self.subscription.reader is None or self._status is None or not self._status.attempt:
            return False
        if self._start is None or self._start.attempt != self._status.log_number:
            return True
        in_window = self._delivered - self._acknowledged < WINDOW_BYTES
        return self.has_new_ack or (self._log_bytes > self._delivered and in_window)

    @property
    def reads_on(self) -> bool:
        """Whether to pass on an acknowledgement at once, because it makes room for more or is the last."""
        if self._start is None or self._status is None or not self.has_new_ack:
            return False
        return self._status.final or self._log_bytes > self._delivered

    @property
    def has_new_ack(self) -> bool:
        """Whether there is an acknowledgement that the cluster does not know."""
        return self.subscription.reader is not None and self.subscription.latest_ack is not self._acked

    @property
    def _acknowledged(self) -> int:
        """The offset up to which this log was acknowledged, or need not be."""
        assert self._start is not None
        ack = self.subscription.latest_ack
        if ack is None or ack.position.attempt != self._start.attempt:
            return self._start.offset
        return max(ack.position.offset, self._start.offset)

    def read(self, cluster: Cluster) -> None:
        """
        Pass on the latest acknowledgement, and deliver what is new.

        :raises GpuClusterConnectionError: the connection is broken.
        """
        assert self.subscription.reader is not None
        ack = self.subscription.latest_ack
        try:
            chunk = cluster.read_log(
                self.subscription.job_id,
                reader=self.subscription.reader,
                max_bytes=0 if self.subscription.closed else WINDOW_BYTES,
                ack=None if ack is None else ack.position,
                note=None if ack is None else ack.note,
            )
        except GpuClusterConnectionError:
            raise
        except GpuClusterError as error:
            self.subscription.deliver(Failure(error))
            return
        if ack is not None and ack is not self._acked:
            self._acked = ack
            self.subscription.deliver(Acked(ack.position))
        if chunk.start.attempt:
            self._deliver(chunk)

    def _deliver(self, chunk: LogChunk) -> None:
        start = chunk.start
        if self._start is None or self._start.attempt != start.attempt:
            self._start, self._delivered = start, start.offset
            self.subscription.deliver(Place(start, chunk.note))
        self._log_bytes = chunk.log_bytes
        # Output that was not acknowledged is read again; output that was acknowledged ahead is never read.
        self._delivered = max(self._delivered, start.offset)
        data = chunk.data[self._delivered - start.offset :]
        if data:
            self.subscription.deliver(Output(LogPosition(start.attempt, self._delivered), data, chunk.log_bytes))
            self._delivered += len(data)


def _matter(status: JobStatus) -> tuple[object, ...]:
    return status.state, status.attempt, status.message, status.queue_place, status.progress, status.notes
