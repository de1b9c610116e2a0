"""A job that somebody looks at: what is known of it, and who is told. One look on its cluster serves all viewers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol.following import LOG
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.progress import Pace
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.plugins.job_detail import Known, Rights, job_detail
from airflow_provider_gpu_cluster.plugins.job_rows import Rows
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.live.clusters import live_cluster
from airflow_provider_gpu_cluster.plugins.live.viewer import Message, OpenPage
from airflow_provider_gpu_cluster.plugins.progress_view import seconds_left
from airflow_provider_gpu_cluster.plugins.shown import shown
from airflow_provider_gpu_cluster.watch.events import Failure, Outage, Points, Printed, WatchEvent
from airflow_provider_gpu_cluster.watch.watcher import Following

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 5.0
# How long a page waits for the cluster's first answer before it shows what is known without it, in seconds.
FIRST_WAIT_S = 0.5
# How often what a job runs, its attempts and its acts are asked for while nothing changes, in seconds.
DESCRIBE_EVERY_S = 60.0
RETRY_S = 15.0

StatusSeen = Callable[[JobHandle, JobStatus], object]
Changed = Callable[[], object]


class LiveJob:
    """
    One job, followed as long as there are viewers. All is done in the thread of the event loop.

    :param status_seen: is told each status.
    """

    def __init__(self, handle: JobHandle, status_seen: StatusSeen) -> None:
        self.handle = handle
        self.known = Known()
        self.outage: Message | None = None
        self._status_seen = status_seen
        self._loop = asyncio.get_running_loop()
        self._viewers: dict[OpenPage, Changed] = {}
        self._following: Following | None = None
        self._pace: Pace | None = None
        self._log_end: Message | None = None
        self._described: tuple[object, ...] = ()
        self._described_at = float("-inf")
        self._describing: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """How many look at it."""
        return len(self._viewers)

    def add(self, viewer: OpenPage, changed: Changed) -> None:
        """
        Tell a viewer about the job from now on.

        :param changed: called when it stands otherwise, and soon even if nothing is known yet.
        """
        self._viewers[viewer] = changed
        self.wants_changed()
        if self.outage is not None:
            viewer.tell(self.outage)
        is_known = self.known.status is not None or self.known.error is not None
        self._loop.call_later(0.0 if is_known else FIRST_WAIT_S, changed)
        if LOG in viewer.wants:
            self.tell_log_end(viewer)

    def remove(self, viewer: OpenPage) -> None:
        """Tell it nothing more."""
        if self._viewers.pop(viewer, None) is not None and self._following is not None:
            self._following.want(self._wanted)

    def tell_log_end(self, viewer: OpenPage) -> None:
        """Tell a viewer up to where the log was told to others, so that it sees whether it lacks something."""
        if self._log_end is not None:
            viewer.tell(self._log_end)

    def wants_changed(self) -> None:
        """Have the cluster tell what any viewer wants, and no more."""
        tails = self._wanted
        if self._following is None or self._following.closed:
            watcher = live_cluster(self.handle.gpu_cluster_conn_id).watcher
            self._following = watcher.follow(
                self.handle.job_id, self._arrived, tails=tails, poll_interval_s=POLL_INTERVAL_S
            )
            if (outage := watcher.outage) is not None:
                self._take(Outage(outage))
        else:
            self._following.want(tails)
        if LOG not in tails:
            self._log_end = None

    @property
    def _wanted(self) -> frozenset[str]:
        return frozenset[str]().union(*(viewer.wants for viewer in self._viewers))

    def close(self) -> None:
        """Follow it no longer."""
        if self._following is not None:
            self._following.close()
            self._following = None
        if self._describing is not None:
            self._describing.cancel()

    def detail(
        self, handle: JobHandle, rights: Rights, rows: Rows, element: int | None, element_count: int | None
    ) -> dict[str, Any]:
        """
        Return all that is told of the job to one who has these rights.

        :param handle: the job, as its task keeps it.
        :param rows: what the table of jobs knows.
        :param element: its index, and how many elements its array has.
        """
        self._describe_if_due()
        row, earlier = rows
        known = replace(self.known, row=row, earlier=earlier)
        return job_detail(handle, known, rights, element=element, element_count=element_count)

    # -- what the cluster tells

    def _arrived(self, event: WatchEvent) -> None:
        """Take an event, in the watcher's thread."""
        self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: WatchEvent) -> None:
        if self._following is None:
            return
        if isinstance(event, Outage):
            self._take_outage(event)
            return
        if self.outage is not None and not isinstance(event, Failure):
            self.outage = None
            self.known = replace(self.known, error=None, error_since=None)
            self._tell_all(Message.of("back"))
            self._tell_changed()
        if isinstance(event, JobStatus):
            self._take_status(event)
        elif isinstance(event, Failure):
            self.known = replace(self.known, error=str(event.error), error_since=datetime.now(timezone.utc))
            self._tell_changed()
            self._loop.call_later(RETRY_S, self._try_again)
        elif isinstance(event, Printed):
            news: dict[str, Any] = {**event.news}
            self._log_end = Message.of("log", **{**news, "offset": news["end"], "lines": [], "bytes": [], "skipped": 0})
            self._tell_all(Message.of("log", **shown(news)), LOG)
        elif isinstance(event, Points):
            points = shown(event.news["points"])
            if points or event.news["skipped"]:
                self._tell_all(Message.of(event.tail, points=points, skipped=event.news["skipped"]), event.tail)

    def _take_outage(self, event: Outage) -> None:
        now = datetime.now(timezone.utc)
        since = self.known.error_since or now
        is_news = self.outage is None
        self.known = replace(self.known, error=str(event.error), error_since=since)
        self.outage = Message.of("outage", error=shown(str(event.error)), since=since.isoformat())
        if is_news:
            self._tell_all(self.outage)
            self._tell_changed()

    def _take_status(self, status: JobStatus) -> None:
        now = datetime.now(timezone.utc)
        self._pace = Pace.seen(status.progress, self._pace, now.timestamp())
        left_s = seconds_left(status, self._pace, now)
        self.known = replace(self.known, status=status, as_of=now, seconds_left=left_s, error=None, error_since=None)
        self._tell_changed()
        self._status_seen(self.handle, status)

    def _describe_if_due(self) -> None:
        """Ask what the job runs, its attempts and its acts, if that may have changed."""
        status = self.known.status
        state = () if status is None else (status.state, status.attempt, status.reason)
        is_due = state != self._described or time.monotonic() >= self._described_at + DESCRIBE_EVERY_S
        if is_due and (self._describing is None or self._describing.done()):
            self._described, self._described_at = state, time.monotonic()
            self._describing = self._loop.create_task(self._describe())

    async def _describe(self) -> None:
        try:
            description = await ask(self.handle.gpu_cluster_conn_id, "describe-job", {"job_id": self.handle.job_id})
        except GpuClusterError as error:
            # The page has the status, and the rest with the next change.
            log.info("job %s cannot be described: %s", self.handle.job_id, words_of(error))
            return
        self.known = replace(self.known, description=description)
        self._tell_changed()

    def _try_again(self) -> None:
        if self._viewers and self._following is not None and self._following.closed:
            self.wants_changed()

    # -- telling

    def _tell_all(self, message: Message, tail: str | None = None) -> None:
        for viewer in self._viewers:
            if tail is None or tail in viewer.wants:
                viewer.tell(message)

    def _tell_changed(self) -> None:
        for changed in list(self._viewers.values()):
            changed()
