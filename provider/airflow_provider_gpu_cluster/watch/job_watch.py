"""Watching a job from a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.job_log import JobLog, Log
from airflow_provider_gpu_cluster.logs.remembered_relay import RememberedRelay
from airflow_provider_gpu_cluster.watch.watch import TAIL_BYTES, Watch

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.watch.notices import Notices


class JobWatch(Watch):
    """
    Watches one job.

    :param log: where to write.
    :param memory: what an earlier watch of this job remembered.
    :param notices: tells people about the job; None tells nobody.
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
        self._job_log = JobLog(log, job_id=handle.job_id, cluster=cluster.settings.name, memory=memory)
        self.memory = self._job_log.memory
        location = handle.log_location(cluster.settings.name)
        self._relay = RememberedRelay(log.info, location=location, memory=self.memory)

    def look(self) -> JobStatus:
        """Get the job's status, and log what is new; see :meth:`.Watch.look`."""
        if self._reader is not None:
            return self._show_output(self._reader)
        notify = {self._handle.job_id: self._when} if self._when else None
        status = self._cluster.statuses([self._handle.job_id], notify=notify)[0]
        self._tell_people(status)
        self._tell(status)
        return status

    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """Note that the cluster could not be reached; see :meth:`.Watch.unreachable_s`."""
        return self._job_log.tell_outage(error)

    def _show_output(self, reader: str) -> JobStatus:
        """Read and show output until nothing is left. The next read, now or later, acknowledges what was shown."""
        while True:
            chunk = self._cluster.read_log(
                self._handle.job_id, reader=reader, ack=self._relay.position, notify=self._when
            )
            self._tell_people(chunk.status)
            self._job_log.tell_reached()
            self._job_log.tell_state(chunk.status)
            moved = self._relay.feed(chunk)
            if not moved or (chunk.is_last_known and not chunk.status.final):
                self._job_log.tell_progress(chunk.status)
                return chunk.status

    def _tell(self, status: JobStatus) -> None:
        self._job_log.tell_reached()
        self._job_log.tell(status)

    def end(self, status: JobStatus) -> None:
        """Write how the job ended; see :meth:`.Watch.end`."""
        if status.state is JobState.SUCCEEDED:
            self._job_log.tell_success(status)
        self._job_log.tell_advice(status)
        if status.state is JobState.SUCCEEDED:
            return
        if not status.log_tail:
            status = self._with_tail(status)
        raise status.error(self._cluster.settings.name)

    def _with_tail(self, status: JobStatus) -> JobStatus:
        try:
            return self._cluster.statuses([self._handle.job_id], tail_bytes=TAIL_BYTES)[0]
        except GpuClusterConnectionError:
            return status
