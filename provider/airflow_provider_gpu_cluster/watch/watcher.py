"""Watching jobs: one connection and one thread for all jobs of a cluster that are waited for in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.watch.events import WatchEvent
from airflow_provider_gpu_cluster.watch.loop import WatchLoop
from airflow_provider_gpu_cluster.watch.mailbox import Mailbox, Subscription

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest

__all__ = ["Subscription", "Watcher"]

_Left = TypeVar("_Left")


class Watcher:
    """
    Watches jobs of one cluster.

    ::

        subscription = watcher.subscribe(job_id, events.put, reader="me", poll_interval_s=10)
        ...
        subscription.close()

    Its thread and its connection come with the first subscription, and go a while after the last one. The methods work
    from any thread, and at once.

    :param conn_id: the cluster's connection.
    :param make_cluster: makes the cluster; called in the watcher's thread, for each connection anew, as a user may
        change what the Airflow connection says.
    """

    def __init__(self, conn_id: str, make_cluster: Callable[[], Cluster]) -> None:
        self.name = conn_id
        """The cluster for a person: ``user@host:port`` once it is known, and the connection's id before."""
        self._conn_id = conn_id
        self._make_cluster = make_cluster
        self._lock = threading.Lock()
        self._mailbox: Mailbox | None = None

    def subscribe(
        self,
        job_id: str,
        notify: Callable[[WatchEvent], object],
        *,
        reader: str | None,
        poll_interval_s: float,
    ) -> Subscription:
        """
        Watch a job.

        :param notify: called with each event, in the watcher's thread; it must not block. When it raises, nothing more
            is told of this job.
        :param reader: a name, under which the cluster keeps up to where the job's output was dealt with; None for no
            output.
        :param poll_interval_s: how often to ask, in seconds, where the cluster lets no command run that would tell.
        """
        return self._leave(lambda mailbox: mailbox.subscribe(job_id, notify, reader, poll_interval_s))

    def launch(self, request: SubmitRequest) -> Future[Submission]:
        """
        Launch a job, or find it launched, over the connection that is there, or else over a new one.

        :param request: from :func:`.submit_request`; it must need no files from here.
        :return: what came of it, or the error. As long as the cluster was not asked, it can be cancelled. After a
            :class:`GpuClusterConnectionError` the same request tells whether the job was launched.
        """
        return self._leave(lambda mailbox: mailbox.launch(request)).future

    def cancel(self, job_id: str, *, requested_by: str) -> Future[JobStatus]:
        """
        Cancel a job over the connection that is there, or else over a new one.

        :param requested_by: who asks, for the record; jobs that the same one asks for go in one call.
        :return: how the job stands then, or the error of the one try that was made.
        """
        return self._leave(lambda mailbox: mailbox.cancel(job_id, requested_by)).future

    def _leave(self, put: Callable[[Mailbox], _Left | None]) -> _Left:
        """Put something into the mailbox of the thread, or of a new one if there is none, or none for long."""
        with self._lock:
            if self._mailbox is not None and (left := put(self._mailbox)) is not None:
                return left
            mailbox = Mailbox()
            left = put(mailbox)
            assert left is not None
            loop = WatchLoop(self._conn_id, mailbox, self._make_named_cluster)
            # Nothing is lost when the process ends without it.
            threading.Thread(target=loop.run, name=f"watcher of {self._conn_id}", daemon=True).start()
            self._mailbox = mailbox
            return left

    def _make_named_cluster(self) -> Cluster:
        cluster = self._make_cluster()
        self.name = cluster.settings.name
        return cluster
