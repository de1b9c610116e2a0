"""Keeps the places of an array's parts while a task waits for it: each in a thread, over connections of its own."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.keeping import JobWentElsewhere
from airflow_provider_gpu_cluster.pools.parts import standing_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.pools.keeping import Keeper
    from airflow_provider_gpu_cluster.pools.members import Members

# How often a part is looked at, in seconds: one whose place is renewed, and one that can only move while it waits.
LOOK_EVERY_S = 5.0
LOOK_SELDOM_S = 20.0


class PartKeeping:
    """
    Keeps the place of one part, whatever takes long for the others.

    :param array: the part, where it is.
    :param keeper: its place.
    :param members: the open clusters, for this alone.
    """

    def __init__(self, array: JobHandle, keeper: Keeper, members: Members[Cluster]) -> None:
        self._array = array
        self._keeper = keeper
        self._members = members
        self._stop = threading.Event()
        self._went: queue.SimpleQueue[Submission] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeps {array.job_id}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether there was nothing more to do."""
        return self._error is None and self._went.empty() and not self._thread.is_alive()

    def news(self) -> Submission | None:
        """
        Return how the part got to another cluster, once; None if it did not.

        :raises GpuClusterError: it is nowhere, and cannot be launched.
        """
        if self._error is not None:
            raise self._error
        news = None
        while not self._went.empty():
            news = self._went.get()
        return news

    def stop(self, wait_s: float | None = None) -> None:
        """
        Begin nothing any more, and wait for what was begun.

        :param wait_s: for how long, in seconds; None for as long as it takes.
        """
        self._stop.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._pause_s()):
                try:
                    if not self._look():
                        return
                except JobWentElsewhere as went:
                    self._array = went.submission.handle
                    self._went.put(went.submission)
        except Exception as error:
            self._error = error
        finally:
            self._members.close()

    def _pause_s(self) -> float:
        every_s = self._keeper.every_s
        return LOOK_SELDOM_S if every_s is None else min(LOOK_EVERY_S, every_s / 2)

    def _look(self) -> bool:
        """Do what is due; return whether there will be more to do."""
        member = self._members(self._array.gpu_cluster_conn_id).retrying_for(0)
        try:
            status = self._status(member)
        except GpuClusterConnectionError:
            if self._keeper.is_due(None, is_out_of_reach=True):
                self._keeper.out_of_reach()
            return True
        if self._keeper.is_due(status, is_out_of_reach=False):
            self._keeper.in_contact(member, status)
        # What has begun is not moved.
        return self._keeper.every_s is not None or status.is_elsewhere or status.state is JobState.QUEUED

    def _status(self, member: Cluster) -> JobStatus:
        array = self._array
        whole, *elements = member.statuses([array.job_id, *(element.job_id for element in array.elements)])
        return standing_of(array.job_id, elements, moved_to=whole.moved_to)
