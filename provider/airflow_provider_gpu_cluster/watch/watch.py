"""Waiting for a job in a task: each look at it is one call, and what is new goes into the task's log."""

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
# Who waits for a job comes again anyway, and must not hold a worker slot through an outage.
RETRY_FOR_S = 20.0
_FIRST_PAUSE_S = 0.5
_PAUSE_GROWTH = 1.25


class Watch(ABC):
    """
    Watches one job, or one array.

    :param cluster: where the job is.
    :param handle: the job.
    :param reader: name of the place up to which output was shown, as the cluster remembers it; None shows no
        output.
    """

    memory: dict[str, Any]
    """What was told already, and up to where output was shown: plain JSON values, for a task that looks again in
    another process."""

    def __init__(self, cluster: Cluster, handle: JobHandle, *, reader: str | None) -> None:
        self._cluster = cluster.retrying_for(RETRY_FOR_S)
        self._handle = handle
        self._reader = reader

    @abstractmethod
    def look(self) -> JobStatus:
        """
        Ask how the job stands, and write what is new.

        :return: how it stands: final when it has ended, and all of its output is shown.
        :raises GpuClusterConnectionError: the cluster cannot be reached now.
        """

    @abstractmethod
    def unreachable_s(self, error: GpuClusterConnectionError) -> float:
        """
        Note that the cluster could not be reached, and say so: the first time, and then ever less often.

        :return: for how many seconds it has not been reached.
        """

    @abstractmethod
    def end(self, status: JobStatus) -> None:
        """
        Write how the job ended.

        :raises GpuJobError: it ended badly; the class says why. Of an array, why the first element did.
        """

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
