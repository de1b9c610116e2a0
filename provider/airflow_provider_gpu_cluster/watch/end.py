"""What a trigger reports to the task that it resumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_provider_gpu_cluster import exceptions
from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.metrics import storable
from airflow_provider_gpu_cluster.jobs.status import JobStatus


@dataclass(frozen=True)
class WatchEnd:
    """
    Why a trigger stopped watching a job.

    :param handle: the job; None if the trigger found none.
    :param status: how the job ended; None if the trigger could not continue.
    :param error: why the trigger could not continue.
    :param job_id: the job's id, if the trigger knew nothing else about it.
    :param reader: name under which the cluster remembers from where the task must show output; None if all was shown.
    :param memory: what the task's log already says; see :class:`JobLog`.
    :param placement: of a job of a pool: the record of where it is. With neither status nor error, only a worker can
        launch it on another cluster.
    """

    handle: JobHandle | None = None
    status: JobStatus | None = None
    error: GpuClusterError | None = None
    job_id: str | None = None
    reader: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, Any] | None = None

    @property
    def about(self) -> str | None:
        """The id of the job that it is about; None if the trigger did not know."""
        return self.job_id if self.handle is None else self.handle.job_id

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, for Airflow's database."""
        return {
            "handle": self.handle and self.handle.to_json(),
            "status": self.status and storable(self.status.to_json()),
            "error": self.error
            and {"class": type(self.error).__name__, "message": str(self.error), "code": self.error.code},
            "job_id": self.job_id,
            "reader": self.reader,
            "memory": self.memory,
            # A worker of an earlier version does not know it.
            **({} if self.placement is None else {"placement": self.placement}),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> WatchEnd:
        """Read it back."""
        handle, status, error = value["handle"], value["status"], value["error"]
        return cls(
            handle=handle and JobHandle.from_json(handle),
            status=status and JobStatus.from_json(status),
            error=error and _error_of(error),
            # The trigger may be of an earlier version.
            job_id=value.get("job_id"),
            reader=value["reader"],
            memory=value["memory"],
            placement=value.get("placement"),
        )


def _error_of(value: dict[str, str]) -> GpuClusterError:
    error: GpuClusterError = getattr(exceptions, value["class"], GpuClusterError)(value["message"])
    error.code = value.get("code", "")
    return error
