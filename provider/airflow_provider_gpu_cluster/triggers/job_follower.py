"""Follows one job through the events of a watcher, until it has ended and its output is in the task's log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.job_log import PROGRESS_EVERY_S, JobLog, Log
from airflow_provider_gpu_cluster.logs.relay import LogPosition, Output
from airflow_provider_gpu_cluster.triggers.output_display import OutputDisplay
from airflow_provider_gpu_cluster.triggers.shown_lines import told_attempts, told_idle
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from airflow_provider_gpu_cluster.watch.events import Acked, Failure, Outage, Place, WatchEvent
from airflow_provider_gpu_cluster.watch.notices import Notices
from airflow_provider_gpu_cluster.watch.watcher import Watcher

# If more output than this is left when the job ends, a worker shows it faster, because it need not share its log.
LEFT_FOR_WORKER_BYTES = 1 << 18
_ACK_TIMEOUT_S = 10.0
# The job's log delays progress for a while; if nothing else arrives in that time, it is told the status again.
HELD_BACK_S = PROGRESS_EVERY_S + 0.5


class JobFollower:
    """
    Follows one job.

    :param log: the task's log.
    :param reader: name under which the cluster remembers how much output was shown; None shows no output.
    :param ti: the task instance that the triggerer gave to the trigger; None outside of a triggerer.
    :param notices: tells people about the job; None tells nobody.
    :param observe: called with each event, for one who keeps the job's place.
    """

    def __init__(
        self,
        handle: JobHandle,
        watcher: Watcher,
        *,
        log: Log,
        reader: str | None,
        ti: Any,
        poll_interval_s: float,
        unreachable_timeout_s: float,
        notices: Notices | None = None,
        observe: Callable[[WatchEvent], object] | None = None,
    ) -> None:
        self._observe = observe
        self._handle = handle
        self._watcher = watcher
        self._reader = reader
        self._poll_interval_s = poll_interval_s
        self._unreachable_timeout_s = unreachable_timeout_s
        self._notices = notices
        self._events: asyncio.Queue[WatchEvent] = asyncio.Queue()
        self._log = log
        self._ti = ti
        self._status: JobStatus | None = None
        self._may_hold_back = False
        self._outage: GpuClusterConnectionError | None = None
        self._error: GpuClusterError | None = None

    async def to_the_end(self) -> WatchEnd:
        """Follow the job until it has ended or cannot be watched; return which it was."""
        loop = asyncio.get_running_loop()
        subscription = self._watcher.subscribe(
            self._handle.job_id,
            lambda event: loop.call_soon_threadsafe(self._events.put_nowait, event),
            reader=self._reader,
            poll_interval_s=self._poll_interval_s,
            when=None if self._notices is None else self._notices.when,
        )
        try:
            first = await self._events.get()
            # Only now does the watcher know the cluster's name.
            self._job_log = self._make_job_log()
            location = self._handle.log_location(self._watcher.name)
            self._display = self._make_display(location, subscription.ack)
            self._take(first)
            self._tell_progress()
            while not self._is_over():
                await self._take_events()
                await self._show_output()
                self._tell_progress()
            if self._error is None and self._output_left():
                # The worker continues from the place that the cluster remembers for this reader.
                await self._until_acknowledged()
        finally:
            subscription.close()
        return self._end()

    def _tell_progress(self) -> None:
        """Log the progress, after the output that it may refer to."""
        if self._status is not None and (not self._status.final or self._is_over()):
            self._job_log.tell_progress(self._status)

    def _make_job_log(self) -> JobLog:
        job_log = JobLog(self._log, job_id=self._handle.job_id, cluster=self._watcher.name)
        if self._ti is not None:
            job_log.skip_attempts(told_attempts(self._ti))
            job_log.skip_idle(told_idle(self._ti))
        return job_log

    def _make_display(self, location: str, acknowledge: Callable[[LogPosition, dict[str, Any]], None]) -> OutputDisplay:
        return OutputDisplay(self._ti, location=location, acknowledge=acknowledge)

    def tell_success(self) -> None:
        """Log that the job has succeeded, and what would help the next one."""
        assert self._status is not None
        self._job_log.tell_success(self._status)
        self._job_log.tell_advice(self._status)

    def _is_over(self) -> bool:
        if self._error is not None:
            return True
        return self._has_ended() and (self._all_shown() or self._is_for_worker())

    def _has_ended(self) -> bool:
        return self._status is not None and self._status.final and not self._status.is_elsewhere

    def _all_shown(self) -> bool:
        assert self._status is not None
        return self._reader is None or self._display.drained(self._status)

    def _is_for_worker(self) -> bool:
        assert self._status is not None
        return self._display.left(self._status) > LEFT_FOR_WORKER_BYTES

    def _output_left(self) -> bool:
        return self._has_ended() and not self._all_shown()

    async def _take_events(self) -> None:
        """Wait for an event, and process all that have arrived."""
        event = await self._next_event(self._longest_wait_s())
        if event is not None:
            self._take(event)
        elif self._outage is not None:
            self._error = self._outage
        elif self._status is not None:
            self._may_hold_back = False
            self._job_log.tell_state(self._status)
        while not self._events.empty():
            self._take(self._events.get_nowait())

    async def _next_event(self, timeout_s: float | None) -> WatchEvent | None:
        """Return the next event; None if none arrives in time."""
        # Before Python 3.12, asyncio.wait_for may swallow a cancellation when an event arrives, and continue.
        coming = asyncio.ensure_future(self._events.get())
        try:
            await asyncio.wait({coming}, timeout=timeout_s)
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()

    def _longest_wait_s(self) -> float | None:
        """Return how long to wait for the next event, in seconds; None for no limit."""
        if self._outage is None:
            return HELD_BACK_S if self._may_hold_back else None
        return max(0.0, self._unreachable_timeout_s - self._job_log.tell_outage(self._outage))

    def _take(self, event: WatchEvent) -> None:
        if self._observe is not None:
            self._observe(event)
        if isinstance(event, Outage):
            self._outage = event.error
            if self._job_log.tell_outage(event.error) > self._unreachable_timeout_s:
                self._error = event.error
            return
        self._outage = None
        self._job_log.tell_reached()
        if isinstance(event, Failure):
            self._error = event.error
        elif isinstance(event, JobStatus):
            self._status = event
            if self._notices is not None:
                self._notices.tell(event, cluster=self._watcher.name)
            self._may_hold_back = True
            self._job_log.tell_state(event)
        elif isinstance(event, Place):
            self._display.place(event)
        elif isinstance(event, Output):
            self._display.add(event)
        elif isinstance(event, Acked):
            self._display.acknowledged = event.position

    async def _show_output(self) -> None:
        """Show the output that has arrived; once the job has ended, leave a flood of it to a worker."""
        while self._status is not None and await self._display.show(self._status):
            while not self._events.empty():
                self._take(self._events.get_nowait())
            if self._is_over():
                return

    async def _until_acknowledged(self) -> None:
        deadline = asyncio.get_running_loop().time() + _ACK_TIMEOUT_S
        while not self._display.is_acknowledged and self._error is None:
            event = await self._next_event(max(0.0, deadline - asyncio.get_running_loop().time()))
            if event is None:
                # Then some lines may be shown twice, but none is lost.
                return
            self._take(event)

    def _end(self) -> WatchEnd:
        if self._error is not None:
            return WatchEnd(self._handle, error=self._error, memory=self._job_log.memory)
        assert self._status is not None
        reader = self._reader if self._output_left() else None
        return WatchEnd(self._handle, self._status, reader=reader, memory=self._job_log.memory)
