"""Following a job from a task: each look is one call, and what is new in it goes into the task's log."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.job import JobHandle, JobState, JobStatus
from airflow_provider_gpu_cluster.log_relay import LogPosition, LogRelay

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster

TAIL_BYTES = 4096
PATIENCE_S = 20.0


class Log(Protocol):
    """The structured logger of a task."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write a line."""
        ...

    def warning(self, event: str, **fields: Any) -> Any:
        """Write a line that asks for attention."""
        ...


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
        self.log = log
        self.reader = reader
        self.memory: dict[str, Any] = dict(memory or {})
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
        status = self._show_output() if self.reader else self._status()
        self.memory.pop("unreachable_since", None)
        return status

    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """
        Note that the cluster could not be reached, and say so: the first time, and then ever less often.

        :return: for how many seconds it has not been reached.
        """
        now = datetime.now(timezone.utc)
        since = datetime.fromisoformat(self.memory.setdefault("unreachable_since", now.isoformat()))
        seconds = (now - since).total_seconds()
        if seconds == 0 or seconds >= 2 * self.memory.get("unreachable_told_s", 0):
            self.memory["unreachable_told_s"] = max(seconds, 15)
            self.log.warning(
                "GPU cluster cannot be reached; the job is not affected, waiting on",
                job_id=self.handle.job_id,
                cluster=self.cluster.settings.name,
                unreachable_s=round(seconds),
                error=str(error),
            )
        return seconds

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
        """Write a line when the job's life has moved on."""
        if status.state is JobState.QUEUED:
            self._once(
                "queued",
                [status.attempt, status.queue_place, status.message],
                "GPU job waits for its turn",
                place=status.queue_place,
                why=status.message,
            )
        elif status.state is JobState.RUNNING:
            self._once(
                "running",
                status.attempt,
                "GPU job runs",
                attempt=status.attempt,
                host=status.host,
                gpus=list(status.gpus),
                waited=_seconds_between(status.submitted_at, status.started_at),
            )
            if status.progress:
                self._once("progress", status.progress, "GPU job progress", **_plain_fields(status.progress))
        elif status.state is JobState.UNKNOWN:
            self._once("unknown", status.message, "State of the GPU job cannot be told now", why=status.message)

    def _once(self, topic: str, value: Any, event: str, **fields: Any) -> None:
        if self.memory.get(topic) != value:
            self.memory[topic] = value
            known = {name: field for name, field in fields.items() if field not in (None, "", [])}
            self.log.info(event, job_id=self.handle.job_id, **known)

    def end(self, status: JobStatus) -> None:
        """
        Write how the job ended.

        :raises GpuJobError: it ended badly; the class says why.
        """
        name = self.cluster.settings.name
        if status.state is JobState.SUCCEEDED:
            self.log.info(
                "GPU job succeeded",
                job_id=self.handle.job_id,
                cluster=name,
                duration=_rounded(status.run_seconds),
                gpu_seconds=_rounded(status.gpu_seconds),
                peak_memory_bytes=status.peak_memory_bytes,
            )
            return
        if not status.log_tail:
            status = self._with_tail(status)
        raise status.error(name)

    def _with_tail(self, status: JobStatus) -> JobStatus:
        try:
            return self.cluster.statuses([self.handle.job_id], tail_bytes=TAIL_BYTES)[0]
        except GpuClusterConnectionError:
            return status


def _plain_fields(progress: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers and words of a progress line, under names that a log line does not use."""
    taken = ("event", "level", "timestamp", "logger", "job_id")
    return {
        f"{name}_" if name in taken else name: value
        for name, value in progress.items()
        if isinstance(value, (str, int, float)) and isinstance(name, str)
    }


def _seconds_between(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return _rounded((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
