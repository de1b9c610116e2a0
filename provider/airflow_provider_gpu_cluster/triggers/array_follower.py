"""Follows an array through the events of a watcher, each element as a job."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.protocol import array_status
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.array_log import ArrayLog
from airflow_provider_gpu_cluster.logs.job_log import JobLog, Log
from airflow_provider_gpu_cluster.logs.relay import LogPosition
from airflow_provider_gpu_cluster.triggers.job_follower import JobFollower
from airflow_provider_gpu_cluster.triggers.output_display import OutputDisplay
from airflow_provider_gpu_cluster.triggers.shown_lines import shown_lines
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from airflow_provider_gpu_cluster.watch.events import WatchEvent
from airflow_provider_gpu_cluster.watch.watcher import Watcher


class ArrayFollower:
    """
    Follows an array as :class:`.JobFollower` follows a job, with the same parameters.

    :param watcher_of: returns the watcher of a connection, for an array on several clusters.
    :param memory: what the log of an earlier follower of this array remembers.
    :param observe: called with each event and the index of its element, for one who keeps the array's place.
    """

    def __init__(
        self,
        handle: JobHandle,
        watcher: Watcher,
        *,
        watcher_of: Callable[[str], Watcher],
        log: Log,
        ti: Any,
        memory: dict[str, Any] | None = None,
        observe: Callable[..., object] | None = None,
        **how: Any,
    ) -> None:
        self._memory = memory
        self._handle = handle
        self._watcher = watcher
        self._log = log
        self._array_log: ArrayLog | None = None
        # Read only once for all elements.
        self.shown_before = functools.cache(lambda: shown_lines(ti))
        self._status: JobStatus | None = None
        self._elements = [
            _ElementFollower(
                self,
                index,
                element,
                watcher_of(element.gpu_cluster_conn_id) if handle.parts else watcher,
                log=log,
                ti=ti,
                observe=None if observe is None else functools.partial(observe, index=index),
                **how,
            )
            for index, element in enumerate(handle.elements)
        ]

    async def to_the_end(self) -> WatchEnd:
        """Follow the array until all elements have ended or one cannot be watched; return which it was."""
        tasks = [asyncio.ensure_future(element.to_the_end()) for element in self._elements]
        try:
            left = set(tasks)
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.result().error is not None:
                        return WatchEnd(self._handle, error=task.result().error, memory=self.log.memory)
            return self._end([task.result() for task in tasks])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, ends: list[WatchEnd]) -> WatchEnd:
        statuses = [end.status.to_json() for end in ends if end.status is not None]
        self._status = JobStatus.from_json(array_status.summary(self._handle.job_id, statuses))
        # A worker shows the output that is left, of any element.
        reader = next((end.reader for end in ends if end.reader is not None), None)
        return WatchEnd(self._handle, self._status, reader=reader, memory=self.log.memory)

    @property
    def memory(self) -> dict[str, Any]:
        """What its log remembers."""
        return (self._memory or {}) if self._array_log is None else self._array_log.memory

    def tell_success(self) -> None:
        """Log that all elements have succeeded."""
        assert self._status is not None
        self.log.tell_summary(self._status)

    # -- for the elements

    @property
    def log(self) -> ArrayLog:
        """The array's log. Made at the first event, because only then the watcher knows the cluster's name."""
        if self._array_log is None:
            name = ", ".join(self._handle.conn_ids) if self._handle.parts else self._watcher.name
            self._array_log = ArrayLog(self._log, self._handle, cluster=name, memory=self._memory)
        return self._array_log

    def take(self) -> None:
        """Note that an element has changed."""
        statuses = [element.status for element in self._elements if element.status is not None]
        if len(statuses) == len(self._elements):
            self.log.tell_waiting(statuses)

    @property
    def has_ended(self) -> bool:
        """Whether all elements have ended."""
        return all(element.status is not None and element.status.final for element in self._elements)


class _ElementFollower(JobFollower):
    def __init__(
        self, array: ArrayFollower, index: int, handle: JobHandle, watcher: Watcher, *, log: Log, **how: Any
    ) -> None:
        super().__init__(handle, watcher, log=log, **how)
        self._array = array
        self._index = index

    @property
    def status(self) -> JobStatus | None:
        """Its last known status."""
        return self._status

    async def to_the_end(self) -> WatchEnd:
        """Follow the element to its end, and log how it ended."""
        end = await super().to_the_end()
        if end.error is None and end.reader is None:
            assert end.status is not None
            self._array.log.tell_end(self._index, end.status, cluster=self._watcher.name)
        return end

    def _take(self, event: WatchEvent) -> None:
        super()._take(event)
        if isinstance(event, JobStatus):
            self._array.take()

    def _is_for_worker(self) -> bool:
        # As long as other elements run, there is time to show the output here.
        return self._array.has_ended and super()._is_for_worker()

    def _make_job_log(self) -> JobLog:
        self._element_log = self._array.log.element(self._index, cluster=self._watcher.name)
        return self._element_log

    def _make_display(self, location: str, acknowledge: Callable[[LogPosition, dict[str, Any]], None]) -> OutputDisplay:
        return OutputDisplay(
            self._ti,
            location=location,
            acknowledge=acknowledge,
            prefix=self._element_log.prefix,
            shown_before=self._array.shown_before,
        )
