"""Waits for a job in a task: polls it, and logs what is new in the task's log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster

TAIL_BYTES = 4096
# A task that waits polls again anyway, and must not hold a worker slot through an outage.
RETRY_FOR_S = 20.0
_FIRST_PAUSE_S = 0.5
_PAUSE_GROWTH = 1.25


class Watch(ABC):
    """
    Watches one job, or one array.

    :param cluster: where the job is.
    :param handle: the job.
    :param reader: name under which the cluster remembers how much output was shown; None shows no output.
    """

    memory: dict[str, Any]
    """What was already logged, and how much output was shown: plain JSON values, for a task that continues in another
    process."""

    def __init__(self, cluster: Cluster, handle: JobHandle, *, reader: str | None) -> None:
        self._cluster = cluster.retrying_for(RETRY_FOR_S)
        self._handle = handle
        self._reader = reader

    @abstractmethod
    def look(self) -> JobStatus:
        """
        Get the job's status, and log what is new.

        :return: its status; final when it has ended and all of its output was shown.
        :raises GpuClusterConnectionError: the cluster cannot be reached now.
        """

    @abstractmethod
    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """
        Note that the cluster could not be reached, and log that: the first time, and then less and less often.

        :return: how long it has been unreachable, in seconds.
        """

    @abstractmethod
    def end(self, status: JobStatus) -> None:
        """
        Log how the job ended.

        :raises GpuJobError: it ended badly; the class says why. For an array, the class of the first such element.
        """

    def wait(
        self, *, pause: Callable[[float], None], longest_pause_s: float, unreachable_timeout_s: float
    ) -> JobStatus:
        """
        Poll until the job has ended: often at first, so that a short job is not waited for longer than it runs.

        :param pause: waits for that many seconds; an exception from it ends the wait.
        :param longest_pause_s: longest time between two polls, in seconds.
        :param unreachable_timeout_s: how long the cluster may be unreachable, in seconds.
        :raises GpuClusterConnectionError: it was unreachable for longer.
        """
        interval_s = _FIRST_PAUSE_S
        while True:
            try:
                if (status := self.look()).final:
                    return status
            except GpuClusterConnectionError as error:
                # A call that was interrupted to end the wait is not an outage.
                pause(0)
                if self.unreachable_s(error) > unreachable_timeout_s:
                    raise
            pause(min(interval_s, longest_pause_s))
            interval_s *= _PAUSE_GROWTH
