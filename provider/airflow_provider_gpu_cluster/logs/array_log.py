"""What a task's log says about an array: each start and end of an element, and from time to time who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run.protocol.array_status import prefix
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.job_log import JobLog, Log

WAITING_EVERY_S = 30.0


def memory_elsewhere(memory: dict[str, Any], before: JobHandle, after: JobHandle) -> dict[str, Any]:
    """
    Return what the log of an array remembers of those elements that are still where they were; nothing of another job.

    :param before: the array, where that was remembered.
    :param after: the array, where it is now.
    """
    if after.array_size is None:
        return {}
    pairs = enumerate(zip(before.elements, after.elements, strict=True))
    went = {index for index, (old, new) in pairs if old.gpu_cluster_conn_id != new.gpu_cluster_conn_id}
    elements = {index: one for index, one in memory.get("elements", {}).items() if int(index) not in went}
    return {"elements": elements, "ended": [index for index in memory.get("ended", ()) if index not in went]}


class ArrayLog:
    """
    Logs the life of an array, each event once.

    :attr:`memory` holds what was already logged: plain JSON values, for a task that continues in another process. For
    an element that has ended it holds only the index.

    :param log: where to write.
    :param handle: the array.
    :param cluster: name of its cluster.
    :param memory: what an earlier log of this array remembered; it is copied.
    """

    def __init__(self, log: Log, handle: JobHandle, *, cluster: str, memory: dict[str, Any] | None = None) -> None:
        self.memory: dict[str, Any] = {"elements": {}, "ended": [], **(memory or {})}
        self._log = log
        self._handle = handle
        self._cluster = cluster
        # Logged once for all elements.
        self._outages = JobLog(log, job_id=handle.job_id, cluster=cluster, memory=self.memory.get("outage"))
        self._unreached: set[int] = set()

    @property
    def ended(self) -> set[int]:
        """Indexes of the elements whose end was logged."""
        return set(self.memory["ended"])

    def element(self, index: int, *, cluster: str | None = None) -> ElementLog:
        """
        Return the log of one element.

        :param cluster: name of its cluster; by default the array's.
        """
        return ElementLog(self, self._log, self._handle, index, cluster=cluster or self._cluster)

    def tell_waiting(self, statuses: Iterable[JobStatus]) -> None:
        """Log how many elements wait, and why the first one waits, if that has changed; at most every 30 seconds."""
        now = datetime.now(timezone.utc).timestamp()
        if abs(now - self.memory.get("waiting_told_at", 0)) < WAITING_EVERY_S:
            return
        known = list(statuses)
        counts = Counter(status.state for status in known)
        waiting, running = counts[JobState.QUEUED], counts[JobState.RUNNING]
        if not waiting or [waiting, running] == self.memory.get("waiting"):
            return
        self.memory["waiting"], self.memory["waiting_told_at"] = [waiting, running], now
        first = next(status for status in known if status.state is JobState.QUEUED)
        self._log.info(
            "Elements of the GPU job array wait for their turn",
            job_id=self._handle.job_id,
            waiting=waiting,
            running=running,
            why=first.message,
        )

    def tell_outage(self, index: int, error: GpuClusterConnectionError) -> float:
        """Log that the cluster cannot be reached; see :meth:`JobLog.tell_outage`."""
        self._unreached.add(index)
        seconds = self._outages.tell_outage(error)
        self.memory["outage"] = self._outages.memory
        return seconds

    def tell_reached(self, index: int) -> None:
        """Log that an outage is over, once it is over for all elements."""
        self._unreached.discard(index)
        if not self._unreached:
            self._outages.tell_reached()
            self.memory.pop("outage", None)

    def tell_end(self, index: int, status: JobStatus, *, cluster: str | None = None) -> None:
        """Log how an element ended; see :meth:`element`."""
        cluster = cluster or self._cluster
        self.memory["elements"].pop(str(index), None)
        if index in self.ended:
            return
        self.memory["ended"].append(index)
        log = _PrefixedLog(self._log, prefix(index, self._handle.array_size or 0))
        if status.state is JobState.SUCCEEDED:
            JobLog(log, job_id=status.job_id, cluster=cluster).tell_success(status)
        else:
            log.warning(
                f"GPU job {status.state}",
                job_id=status.job_id,
                cluster=cluster,
                reason=status.reason,
                message=status.message,
                exit_code=status.exit_code,
            )

    def tell_summary(self, status: JobStatus) -> None:
        """
        Log how the array ended, and what would help the next one.

        :param status: status of the array.
        """
        self._log.info("GPU job array ended", job_id=status.job_id, cluster=self._cluster, summary=status.message)
        JobLog(self._log, job_id=status.job_id, cluster=self._cluster).tell_advice(status)


class ElementLog(JobLog):
    """
    Logs the life of one element, except for what its array logs for all elements.

    Its memory is part of the array's.
    """

    def __init__(self, array: ArrayLog, log: Log, handle: JobHandle, index: int, *, cluster: str) -> None:
        line_start = prefix(index, handle.array_size or 0)
        super().__init__(_PrefixedLog(log, line_start), job_id=handle.element(index).job_id, cluster=cluster)
        self.prefix = line_start
        self.memory = array.memory["elements"].setdefault(str(index), {})
        self._array = array
        self._index = index

    def tell_outage(self, error: GpuClusterConnectionError) -> float:
        """Log that the cluster cannot be reached, once for the array."""
        return self._array.tell_outage(self._index, error)

    def tell_reached(self) -> None:
        """Log that an outage is over, once for the array."""
        self._array.tell_reached(self._index)

    def tell_success(self, status: JobStatus) -> None:
        """Log that the element has succeeded."""
        self._array.tell_end(self._index, status, cluster=self._cluster)

    def _tell_queued(self, status: JobStatus) -> None:
        """Log nothing here; the array does, because most elements wait most of the time."""


class _PrefixedLog:
    """Writes lines that begin with their element."""

    def __init__(self, log: Log, line_start: str) -> None:
        self._log = log
        self._line_start = line_start

    def info(self, event: str, **fields: Any) -> Any:
        return self._log.info(self._line_start + event, **fields)

    def warning(self, event: str, **fields: Any) -> Any:
        return self._log.warning(self._line_start + event, **fields)
