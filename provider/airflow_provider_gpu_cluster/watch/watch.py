"""Waits for a job in a task: polls it, and logs what is new in the task's log."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import NotifyWhen
    from airflow_provider_gpu_cluster.pools.keeping import KeepsPlace
    from airflow_provider_gpu_cluster.watch.notices import Notices

log = logging.getLogger(__name__)

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
    :param notices: tells people about the job; None tells nobody.
    """

    memory: dict[str, Any]
    """What was already logged, and how much output was shown: plain JSON values, for a task that continues in another
    process."""

    def __init__(
        self, cluster: Cluster, handle: JobHandle, *, reader: str | None, notices: Notices | None = None
    ) -> None:
        self._cluster = cluster.retrying_for(RETRY_FOR_S)
        self._handle = handle
        self._reader = reader
        self._notices = notices

    @property
    def _when(self) -> NotifyWhen | None:
        return None if self._notices is None else self._notices.when

    def _tell_people(self, status: JobStatus) -> None:
        """Begin to tell people what is due."""
        if self._notices is not None:
            self._notices.tell(status, cluster=self._cluster.settings.name)

    def settle(self, pause: Callable[[float], None]) -> None:
        """
        Wait a while for the messages that are being sent, and note on the cluster what was sent.

        :param pause: waits for that many seconds; an exception from it ends the wait.
        """
        if self._notices is not None:
            self._notices.wait(pause)
            self._note_told(self._notices)

    def _note_told(self, notices: Notices) -> None:
        for job_id, notice in notices.take_sent():
            try:
                self._cluster_of(job_id).note_told(job_id, notice)
            except GpuClusterError as error:
                # At worst, somebody is told twice.
                log.info("it could not be noted yet that people were told about %s: %s", job_id, error)
                notices.give_back(job_id, notice)

    def _cluster_of(self, job_id: str) -> Cluster:
        """Return where a job is, or an element."""
        return self._cluster

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
        self,
        *,
        pause: Callable[[float], None],
        longest_pause_s: float,
        unreachable_timeout_s: float,
        keeper: KeepsPlace | None = None,
    ) -> JobStatus:
        """
        Poll until the job has ended: often at first, so that a short job is not waited for longer than it runs.

        :param pause: waits for that many seconds; an exception from it ends the wait.
        :param longest_pause_s: longest time between two polls, in seconds.
        :param unreachable_timeout_s: how long the cluster may be unreachable, in seconds.
        :param keeper: keeps the place of a job of a pool; None if there is only this cluster.
        :raises GpuClusterConnectionError: it was unreachable for longer.
        :raises JobWentElsewhere: the job is on another cluster of its pool.
        """
        interval_s = _FIRST_PAUSE_S
        while True:
            try:
                if self._notices is not None:
                    self._note_told(self._notices)
                status = self.look()
                if keeper is not None:
                    keeper.in_contact(self._cluster, status)
                if status.final and (keeper is None or not status.is_elsewhere):
                    self.settle(pause)
                    return status
            except GpuClusterConnectionError as error:
                # A call that was interrupted to end the wait is not an outage.
                pause(0)
                unreachable_s = self.unreachable_s(error)
                if keeper is not None:
                    keeper.out_of_reach()
                if unreachable_s > unreachable_timeout_s:
                    raise
            pause(min(interval_s, longest_pause_s))
            interval_s *= _PAUSE_GROWTH
