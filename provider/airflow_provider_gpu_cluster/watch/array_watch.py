"""Watches an array from a task, with one call at a time for all elements that have not ended yet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import FENCED_OFF
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.array_log import ArrayLog
from airflow_provider_gpu_cluster.logs.job_log import Log
from airflow_provider_gpu_cluster.logs.relay import LogChunk
from airflow_provider_gpu_cluster.logs.remembered_relay import RememberedRelay
from airflow_provider_gpu_cluster.pools.following import current_handle
from airflow_provider_gpu_cluster.pools.parts import standing_of, status_of
from airflow_provider_gpu_cluster.watch.watch import RETRY_FOR_S, TAIL_BYTES, Watch

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.pools.parts import OpenCluster
    from airflow_provider_gpu_cluster.watch.notices import Notices


class ArrayWatch(Watch):
    """
    Watches an array.

    :param log: where to write.
    :param memory: what an earlier watch of this array remembered.
    :param notices: tells people about its elements; None tells nobody.
    :param open_cluster: returns the cluster of a connection, for an array on several clusters.
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
        open_cluster: OpenCluster | None = None,
    ) -> None:
        super().__init__(cluster, handle, reader=reader, notices=notices)
        self._clusters = {handle.gpu_cluster_conn_id: self._cluster}
        if handle.parts and open_cluster is not None:
            self._clusters = {conn_id: open_cluster(conn_id).retrying_for(RETRY_FOR_S) for conn_id in handle.conn_ids}
        self._open_cluster = open_cluster
        self._conn_ids = {element.job_id: element.gpu_cluster_conn_id for element in handle.elements}
        self._unreached = 0
        name = ", ".join(one.settings.name for one in self._clusters.values())
        self._array_log = ArrayLog(log, handle, cluster=name, memory=memory)
        self.memory = self._array_log.memory
        ended = self._array_log.ended
        self._elements = {
            element.job_id: _WatchedElement(
                index, element, self._array_log, self._cluster_of(element.job_id).settings.name, log
            )
            for index, element in enumerate(handle.elements)
            if index not in ended
        }

    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """Note that the cluster could not be reached; see :meth:`.Watch.unreachable_s`."""
        return self._array_log.tell_outage(self._unreached, error)

    def _cluster_of(self, job_id: str) -> Cluster:
        return self._clusters[self._conn_ids[job_id]]

    def look(self) -> JobStatus:
        """Get the statuses of the elements, and log what is new; see :meth:`.Watch.look`."""
        unreached: GpuClusterConnectionError | None = None
        for number, (conn_id, cluster) in enumerate(self._clusters.items()):
            elements = {
                job_id: element for job_id, element in self._elements.items() if self._conn_ids[job_id] == conn_id
            }
            try:
                self._look_at(number, cluster, elements)
            except GpuClusterConnectionError as error:
                # What is on the others is looked at all the same.
                if unreached is None:
                    unreached, self._unreached = error, number
        for job_id, element in list(self._elements.items()):
            if element.is_done:
                assert element.status is not None
                name = self._cluster_of(job_id).settings.name
                self._array_log.tell_end(element.index, element.status, cluster=name)
                del self._elements[job_id]
        if self._elements:
            if unreached is not None:
                raise unreached
            self._array_log.tell_waiting(one.status for one in self._elements.values() if one.status is not None)
            return self._standing()
        if not self._handle.parts:
            return self._cluster.statuses([self._handle.job_id], tail_bytes=TAIL_BYTES)[0]
        assert self._open_cluster is not None
        if current_handle(self._handle, self._open_cluster) != self._handle:
            # What has ended here was left behind.
            return JobStatus(self._handle.job_id, JobState.RUNNING, placement=FENCED_OFF)
        return status_of(self._handle, self._clusters.__getitem__, tail_bytes=TAIL_BYTES)

    def _standing(self) -> JobStatus:
        """Return how those elements stand that have not ended, or of which output is left."""
        statuses = [one.status for one in self._elements.values() if one.status is not None]
        standing = standing_of(self._handle.job_id, statuses)
        is_all = len(statuses) == self._handle.array_size
        if not standing.is_elsewhere and (standing.final or not is_all):
            return replace(standing, state=JobState.RUNNING)
        return standing

    def _look_at(self, number: int, cluster: Cluster, elements: dict[str, _WatchedElement]) -> None:
        """Look at the elements on one cluster."""
        if self._reader is not None:
            self._show_output(self._reader, number, cluster, elements)
        elif elements:
            notify = dict.fromkeys(elements, self._when) if self._when else None
            statuses = cluster.statuses(list(elements), notify=notify)
            self._array_log.tell_reached(number)
            for status in statuses:
                self._tell_people(status)
                elements[status.job_id].take(status)

    def _show_output(self, reader: str, number: int, cluster: Cluster, elements: dict[str, _WatchedElement]) -> None:
        """Read and show output until nothing is left."""
        to_read = elements
        while to_read:
            places = {job_id: element.relay.position for job_id, element in to_read.items()}
            chunks = cluster.read_logs(places, reader=reader, notify=self._when)
            self._array_log.tell_reached(number)
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
            raise status.error(", ".join(one.settings.name for one in self._clusters.values()))


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
        self.is_done = status.final and not status.is_elsewhere

    def show(self, chunk: LogChunk) -> bool:
        """Show a piece of its output, and return whether the place has moved."""
        self.status = status = chunk.status
        self._log.tell_state(status)
        has_moved = self.relay.feed(chunk)
        self._log.tell_progress(status)
        # A reply may be too full for any output of this element.
        self._left = not chunk.is_last_known
        # By then the cluster knows how much was shown.
        self.is_done = status.final and not status.is_elsewhere and not has_moved and not self._left
        return has_moved

    def reads_on(self, has_moved: bool) -> bool:
        """Return whether there may be more to show now, or to acknowledge."""
        assert self.status is not None
        is_to_end = self.status.final and not self.status.is_elsewhere
        return (is_to_end and not self.is_done) or (has_moved and self._left)
