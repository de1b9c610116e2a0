"""What a watcher tells of a job. Frozen values, no IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogPosition, Output


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where the reader of a job's output is; the next output starts there, whatever came before.

    :param note: what was acknowledged together with this place; None when nothing was.
    """

    position: LogPosition
    note: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Acked:
    """The cluster has noted up to where the reader is done."""

    position: LogPosition


@dataclass(frozen=True, slots=True)
class Outage:
    """The cluster could not be reached just now; the watcher goes on trying. Any other event ends the outage."""

    error: GpuClusterConnectionError


@dataclass(frozen=True, slots=True)
class Failure:
    """This job cannot be watched, and nothing more is told of it."""

    error: GpuClusterError


WatchEvent = JobStatus | Place | Output | Acked | Outage | Failure
