"""The events of a job that a watcher reports. Frozen values, no IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogPosition, Output

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.following import LogNews, PointNews


@dataclass(frozen=True, slots=True)
class Place:
    """
    The place of the reader of a job's output; the next output starts there, whatever came before.

    :param note: the note that was acknowledged together with this place; None if there was none.
    """

    position: LogPosition
    note: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Acked:
    """The cluster has noted the place up to which the reader has processed the output."""

    position: LogPosition


@dataclass(frozen=True, slots=True)
class Outage:
    """The cluster could not be reached; the watcher keeps trying. Any other event ends the outage."""

    error: GpuClusterConnectionError


@dataclass(frozen=True, slots=True)
class Failure:
    """This job cannot be watched; no more events of it follow."""

    error: GpuClusterError


@dataclass(frozen=True, slots=True)
class Printed:
    """What a followed job has printed, without its secrets."""

    news: LogNews


@dataclass(frozen=True, slots=True)
class Points:
    """
    What a followed job has reported, or has used.

    :param tail: ``progress`` or ``usage``.
    """

    tail: str
    news: PointNews


WatchEvent = JobStatus | Place | Output | Acked | Outage | Failure | Printed | Points
