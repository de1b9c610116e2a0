"""A cluster in memory, for what a real one does not do on demand. It is a fake, and runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition
from airflow_provider_gpu_cluster.sources import Source

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice, NotifyWhen


class TasksCluster(Protocol):
    """What tasks that launch a job and wait for it ask of a cluster."""

    settings: ClusterSettings

    def submit(
        self, job_id: str, *, sources: Sequence[Source] | None, **asked: Unpack[LaunchArguments]
    ) -> Submission: ...

    def statuses(
        self, job_ids: Sequence[str], *, tail_bytes: int = 0, notify: Mapping[str, NotifyWhen] | None = None
    ) -> list[JobStatus]: ...

    def read_log(
        self,
        job_id: str,
        *,
        reader: str,
        max_bytes: int = 1 << 20,
        ack: LogPosition | None = None,
        notify: NotifyWhen | None = None,
    ) -> LogChunk: ...

    def note_told(self, job_id: str, notice: Notice) -> None: ...

    def cancel(
        self,
        job_ids: Sequence[str],
        *,
        requested_by: str,
        wait_s: float = 0,
        request_keys: Mapping[str, str] | None = None,
    ) -> list[JobStatus]: ...

    def retrying_for(self, seconds: float) -> TasksCluster: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class FakeCluster:
    """
    Answers like :class:`Cluster`, one scripted step at a time.

    :param steps: what each look at the job brings: a status, output that comes with the status before, or an
        exception to raise. The last one stays.
    """

    def __init__(self, *steps: JobStatus | bytes | Exception) -> None:
        self.settings = ClusterSettings(conn_id="gpu_cluster_default", name="me@fake")
        self.steps = list(steps)
        self.status = JobStatus("none", JobState.QUEUED)
        self.log = b""
        self.acknowledged: dict[str, LogPosition] = {}
        self.submits: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.launches_stopped: dict[str, str] = {}
        self.interrupts = 0
        self.asked_to_notify: list[Any] = []
        self.noted: list[tuple[str, str]] = []
        self.on_look: Callable[[], None] = lambda: None

    def __call__(self, settings: ClusterSettings, connect: Callable[[], Any], **_: Any) -> FakeCluster:
        """Stand in for the class, so that a hook can be given this one."""
        return self

    def retrying_for(self, seconds: float) -> FakeCluster:
        return self

    def submit(self, job_id: str, *, sources: Sequence[Source] | None, **asked: Unpack[LaunchArguments]) -> Submission:
        self.submits.append({"job_id": job_id, "sources": sources, **asked})
        created = len(self.submits) == 1
        spec = asked["spec"]
        handle = JobHandle(job_id, "gpu_cluster_default", f"/jobs/{job_id}", "host", "2026-01-01", spec.gpus)
        return Submission(handle, JobStatus(job_id, JobState.QUEUED, attempt=1), created)

    def statuses(
        self, job_ids: Sequence[str], *, tail_bytes: int = 0, notify: Mapping[str, NotifyWhen] | None = None
    ) -> list[JobStatus]:
        self.asked_to_notify.append(notify)
        self._step()
        tail = self.log[-tail_bytes:].decode() if tail_bytes else ""
        return [replace(self.status, job_id=job_id, log_tail=tail) for job_id in job_ids]

    def read_log(
        self,
        job_id: str,
        *,
        reader: str,
        max_bytes: int = 1 << 20,
        ack: LogPosition | None = None,
        notify: NotifyWhen | None = None,
    ) -> LogChunk:
        self.asked_to_notify.append(notify)
        self._step()
        if ack is not None:
            self.acknowledged[reader] = ack
        start = self.acknowledged.get(reader, LogPosition(1, 0))
        data = self.log[start.offset :][:max_bytes]
        return LogChunk(start, data, len(self.log), replace(self.status, job_id=job_id))

    def note_told(self, job_id: str, notice: Notice) -> None:
        self.noted.append((job_id, notice["event"]))

    def cancel(
        self,
        job_ids: Sequence[str],
        *,
        requested_by: str,
        wait_s: float = 0,
        request_keys: Mapping[str, str] | None = None,
    ) -> list[JobStatus]:
        self.cancelled += job_ids
        self.launches_stopped.update(request_keys or {})
        return [JobStatus(job_id, JobState.CANCELLED, reason="cancelled") for job_id in job_ids]

    def interrupt(self) -> None:
        self.interrupts += 1

    def close(self) -> None: ...

    def _step(self) -> None:
        self.on_look()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            self.log += step
        else:
            self.status = step


def _is_alike(real: Cluster, fake: FakeCluster) -> list[TasksCluster]:
    """Have it checked, where types are, that the fake and the real one can do the same."""
    return [real, fake]
