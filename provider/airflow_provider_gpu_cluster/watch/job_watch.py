"""Following a job from a task: each look is one call, and what is new in it goes into the task's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.job_log import JobLog, Log
from airflow_provider_gpu_cluster.logs.relay import LogPosition, LogRelay

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster

TAIL_BYTES = 4096
PATIENCE_S = 20.0
_FIRST_PAUSE_S = 0.5
_PAUSE_GROWTH = 1.25


class JobWatch:
    """
    Follows one job.

    What it has told already, and up to where it has shown the job's output, is in :attr:`memory`: plain JSON
    values, for a task that looks again in another process.

    :param cluster: where the job is.
    :param handle: the job.
    :param log: where to write.
    :param reader: name of the place up to which output was shown, as the cluster remembers it; None shows no
        output.
    :param memory: what an earlier watch of this job remembered.
    """

    def __init__(
        self,
        cluster: Cluster,
        handle: JobHandle,
        *,
        log: Log,
        reader: str | None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.cluster = cluster
        self.handle = handle
        self.reader = reader
        self._job_log = JobLog(log, job_id=handle.job_id, cluster=cluster.settings.name, memory=memory)
        self.memory = self._job_log.memory
        location = f"{cluster.settings.name}:{handle.job_dir}/logs/training.log"
        self._relay = LogRelay(log.info, location=location)
        # Who waits for a job comes again anyway, and must not hold a worker slot through an outage.
        cluster.patience_s = PATIENCE_S
        if shown := self.memory.get("shown"):
            self._relay.position = LogPosition(*shown)

    def look(self) -> JobStatus:
        """
        Ask how the job stands, and write what is new.

        :raises GpuClusterConnectionError: the cluster cannot be reached now.
        """
        return self._show_output() if self.reader else self._status()

    def wait(
        self, *, pause: Callable[[float], None], longest_pause_s: float, unreachable_timeout_s: float
    ) -> JobStatus:
        """
        Look until the job has ended: first often, so that a short job is not waited for longer than it runs.

        :param pause: waits for that many seconds; what it raises ends the wait.
        :param longest_pause_s: longest time between two looks, in seconds.
        :param unreachable_timeout_s: how long the cluster may be unreachable, in seconds.
        :raises GpuClusterConnectionError: it was unreachable for longer.
        """
        interval_s = _FIRST_PAUSE_S
        while True:
            try:
                if (status := self.look()).final:
                    return status
            except GpuClusterConnectionError as error:
                # A call that was broken off because the wait is to end is no outage.
                pause(0)
                if self.unreachable_s(error) > unreachable_timeout_s:
                    raise
            pause(min(interval_s, longest_pause_s))
            interval_s *= _PAUSE_GROWTH

    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """
        Note that the cluster could not be reached, and say so: the first time, and then ever less often.

        :return: for how many seconds it has not been reached.
        """
        return self._job_log.tell_outage(error)

    def _status(self) -> JobStatus:
        status = self.cluster.statuses([self.handle.job_id])[0]
        self._tell(status)
        return status

    def _show_output(self) -> JobStatus:
        """Read and show until nothing is left. The next read, now or later, acknowledges what was shown."""
        assert self.reader is not None
        while True:
            chunk = self.cluster.read_log(self.handle.job_id, reader=self.reader, ack=self._relay.position)
            self._tell(chunk.status)
            moved = self._relay.feed(chunk)
            if (place := self._relay.position) is not None:
                self.memory["shown"] = [place.attempt, place.offset]
            left = (
                chunk.status.final or chunk.end.offset < chunk.log_bytes or chunk.status.attempt > chunk.start.attempt
            )
            if not (moved and left):
                return chunk.status

    def _tell(self, status: JobStatus) -> None:
        self._job_log.tell_reached()
        self._job_log.tell(status)

    def end(self, status: JobStatus) -> None:
        """
        Write how the job ended.

        :raises GpuJobError: it ended badly; the class says why.
        """
        if status.state is JobState.SUCCEEDED:
            self._job_log.tell_success(status)
            return
        if not status.log_tail:
            status = self._with_tail(status)
        raise status.error(self.cluster.settings.name)

    def _with_tail(self, status: JobStatus) -> JobStatus:
        try:
            return self.cluster.statuses([self.handle.job_id], tail_bytes=TAIL_BYTES)[0]
        except GpuClusterConnectionError:
            return status
