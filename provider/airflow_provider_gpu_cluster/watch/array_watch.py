"""Watches an array from a task, with one call at a time for all elements that have not ended yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.array_log import ArrayLog
from airflow_provider_gpu_cluster.logs.job_log import Log
from airflow_provider_gpu_cluster.logs.relay import LogChunk
from airflow_provider_gpu_cluster.logs.remembered_relay import RememberedRelay
from airflow_provider_gpu_cluster.watch.watch import TAIL_BYTES, Watch

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.watch.notices import Notices


class ArrayWatch(Watch):
    """
    Watches an array.

    :param log: where to write.
    :param memory: what an earlier watch of this array remembered.
    :param notices: tells people about its elements; None tells nobody.
    """

    def __init__(
        self,
        cluster: Cluster,
        handle: JobHandle,
        *,
        log: Log,
        reader: str | None,
        memory: dict[str, Any] | None = None,
        notices: Notices | None = None,
    ) -> None:
        super().__init__(cluster, handle, reader=reader, notices=notices)
        self._array_log = ArrayLog(log, handle, cluster=cluster.settings.name, memory=memory)
        self.memory = self._array_log.memory
        ended = self._array_log.ended
        self._elements = {
            element.job_id: _WatchedElement(index, element, self._array_log, cluster.settings.name, log)
            for index, element in enumerate(handle.elements)
            if index not in ended
        }

    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """Note that the cluster could not be reached; see :meth:`.Watch.unreachable_s`."""
        return self._array_log.tell_outage(0, error)

    def look(self) -> JobStatus:
        """Get the statuses of the elements, and log what is new; see :meth:`.Watch.look`."""
        if self._reader is not None:
            self._show_output(self._reader)
        elif self._elements:
            self._take_statuses()
        for job_id, element in list(self._elements.items()):
            if element.is_done:
                assert element.status is not None
                self._array_log.tell_end(element.index, element.status)
                del self._elements[job_id]
        if self._elements:
            self._array_log.tell_waiting(one.status for one in self._elements.values() if one.status is not None)
            return JobStatus(self._handle.job_id, JobState.RUNNING)
        return self._cluster.statuses([self._handle.job_id], tail_bytes=TAIL_BYTES)[0]

    def _take_statuses(self) -> None:
        notify = dict.fromkeys(self._elements, self._when) if self._when else None
        statuses = self._cluster.statuses(list(self._elements), notify=notify)
        self._array_log.tell_reached(0)
        for status in statuses:
            self._tell_people(status)
            self._elements[status.job_id].take(status)

    def _show_output(self, reader: str) -> None:
        """Read and show output until nothing is left."""
        to_read = dict(self._elements)
        while to_read:
            places = {job_id: element.relay.position for job_id, element in to_read.items()}
            chunks = self._cluster.read_logs(places, reader=reader, notify=self._when)
            self._array_log.tell_reached(0)
            for chunk in chunks.values():
                self._tell_people(chunk.status)
            has_moved = {job_id: to_read[job_id].show(chunk) for job_id, chunk in chunks.items()}
            if not any(has_moved.values()):
                break
            to_read = {job_id: element for job_id, element in to_read.items() if element.reads_on(has_moved[job_id])}

    def end(self, status: JobStatus) -> None:
        """Write how the array ended; see :meth:`.Watch.end`."""
        self._array_log.tell_summary(status)
        if status.state is not JobState.SUCCEEDED:
            raise status.error(self._cluster.settings.name)


class _WatchedElement:
    """One element that has not ended, or whose output was not shown completely."""

    def __init__(self, index: int, handle: JobHandle, array_log: ArrayLog, cluster: str, log: Log) -> None:
        self.index = index
        self.status: JobStatus | None = None
        self.is_done = False
        self._log = array_log.element(index)
        self._left = False

        def emit(line: str) -> None:
            log.info(self._log.prefix + line)

        self.relay = RememberedRelay(emit, location=handle.log_location(cluster), memory=self._log.memory)

    def take(self, status: JobStatus) -> None:
        """Take its status, when its output is not to be shown."""
        self.status = status
        self._log.tell(status)
        self.is_done = status.final

    def show(self, chunk: LogChunk) -> bool:
        """Show a piece of its output, and return whether the place has moved."""
        self.status = status = chunk.status
        self._log.tell_state(status)
        has_moved = self.relay.feed(chunk)
        self._log.tell_progress(status)
        # A reply may be too full for any output of this element.
        self._left = not chunk.is_last_known
        # By then the cluster knows how much was shown.
        self.is_done = status.final and not has_moved and not self._left
        return has_moved

    def reads_on(self, has_moved: bool) -> bool:
        """Return whether there may be more to show now, or to acknowledge."""
        assert self.status is not None
        return (self.status.final and not self.is_done) or (has_moved and self._left)
