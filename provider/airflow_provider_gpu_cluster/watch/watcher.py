"""Watches jobs: one connection and one thread for all jobs of a cluster that this process waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.watch.events import WatchEvent
from airflow_provider_gpu_cluster.watch.loop import WatchLoop
from airflow_provider_gpu_cluster.watch.mailbox import Mailbox
from airflow_provider_gpu_cluster.watch.subscriptions import Following, Subscription

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice, NotifyWhen
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest

__all__ = ["Following", "Subscription", "Watcher"]

_Left = TypeVar("_Left")


class Watcher:
    """
    Watches jobs of one cluster.

    ::

        subscription = watcher.subscribe(job_id, events.put, reader="me", poll_interval_s=10)
        ...
        subscription.close()

    Its thread and its connection start with the first subscription, and end a while after the last one. The methods
    work from any thread, without blocking.

    :param conn_id: the cluster's connection.
    :param make_cluster: makes the cluster; called in the watcher's thread, again for each connection, because a user
        may change the Airflow connection.
    """

    def __init__(self, conn_id: str, make_cluster: Callable[[], Cluster]) -> None:
        self.name = conn_id
        """Readable name of the cluster: ``user@host:port`` once that is known, the connection's id before."""
        self._conn_id = conn_id
        self._make_cluster = make_cluster
        self._lock = threading.Lock()
        self._mailbox: Mailbox | None = None

    @property
    def outage(self) -> GpuClusterConnectionError | None:
        """Why the cluster was out of reach at the last try; None when it was not, or nobody has tried for a while."""
        mailbox = self._mailbox
        return None if mailbox is None else mailbox.outage

    def subscribe(
        self,
        job_id: str,
        notify: Callable[[WatchEvent], object],
        *,
        reader: str | None,
        poll_interval_s: float,
        when: NotifyWhen | None = None,
    ) -> Subscription:
        """
        Watch a job.

        :param notify: called with each event, in the watcher's thread; it must not block. If it raises, it gets no
            more events of this job.
        :param reader: a name, under which the cluster remembers how much of the job's output was processed; None for
            no output.
        :param poll_interval_s: time between two polls in seconds, on a cluster that forbids long commands.
        :param when: when people are to be told about the job; the subscriber has to tell what :attr:`.JobStatus.due`
            says.
        """
        return self._leave(lambda mailbox: mailbox.subscribe(job_id, notify, reader, poll_interval_s, when))

    def follow(
        self,
        job_id: str,
        notify: Callable[[WatchEvent], object],
        *,
        tails: frozenset[str] = frozenset(),
        poll_interval_s: float,
    ) -> Following:
        """
        Look on at a job, without counting as somebody who asks for it.

        :param notify: as :meth:`subscribe` calls it; besides statuses, outages and failures it gets :class:`.Printed`
            and :class:`.Points`.
        :param tails: the files of which new lines are wanted, see :data:`.protocol.following.TAILS`.
        """
        return self._leave(lambda mailbox: mailbox.follow(job_id, notify, tails, poll_interval_s))

    def note_told(self, job_id: str, notice: Notice) -> Future[None]:
        """
        Note on the cluster that people were told about something that was due, so that nobody tells it again.

        :return: ends when that is noted.
        """
        return self._leave(lambda mailbox: mailbox.note_told(job_id, notice)).future

    def launch(self, request: SubmitRequest) -> Future[Submission]:
        """
        Launch a job, or find it launched, over the existing connection or a new one.

        :param request: from :func:`.submit_request`; it must need no files from this machine.
        :return: the result, or the error. It can be cancelled until the cluster is asked. After a
            :class:`GpuClusterConnectionError`, repeat the request to find out whether the job was launched.
        """
        return self._leave(lambda mailbox: mailbox.launch(request)).future

    def call(self, verb: str, request: dict[str, Any]) -> Future[Any]:
        """
        Call a verb of :data:`.protocol.CALLS`, over the existing connection or a new one. If a connection breaks
        meanwhile, it is called again.

        :return: its reply, or the error; while the cluster is known to be out of reach, that at once.
        """
        return self._leave(lambda mailbox: mailbox.call(verb, request)).future

    def reconnect(self) -> None:
        """Replace the connection, if there is one, as the Airflow connection has changed. Nothing else changes."""
        with self._lock:
            if self._mailbox is not None:
                self._mailbox.reconnect()

    def cancel(self, job_id: str, *, requested_by: str, request_key: str | None = None) -> Future[JobStatus]:
        """
        Cancel a job over the existing connection or a new one.

        :param requested_by: who asks, for the record; one call cancels all jobs with the same requester.
        :param request_key: of a launch of the job that may still be on its way; it then launches nothing.
        :return: the job's status after that, or the error of the only try.
        """
        return self._leave(lambda mailbox: mailbox.cancel(job_id, requested_by, request_key)).future

    def _leave(self, put: Callable[[Mailbox], _Left | None]) -> _Left:
        """Put something into the thread's mailbox; start a new thread if there is none or it is ending."""
        with self._lock:
            if self._mailbox is not None and (left := put(self._mailbox)) is not None:
                return left
            mailbox = Mailbox()
            left = put(mailbox)
            assert left is not None
            loop = WatchLoop(self._conn_id, mailbox, self._make_named_cluster)
            # A daemon, because nothing is lost if the process ends before it.
            threading.Thread(target=loop.run, name=f"watcher of {self._conn_id}", daemon=True).start()
            self._mailbox = mailbox
            return left

    def _make_named_cluster(self) -> Cluster:
        cluster = self._make_cluster()
        self.name = cluster.settings.name
        return cluster
