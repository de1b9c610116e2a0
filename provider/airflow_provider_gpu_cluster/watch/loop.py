"""The thread of a watcher: it keeps a connection to a cluster, and delivers its events to subscriptions."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, GpuClusterSetupError
from airflow_provider_gpu_cluster.stats import metrics
from airflow_provider_gpu_cluster.stats.sending import count, gauge
from airflow_provider_gpu_cluster.watch.channel import WatchChannel, WatchRefused
from airflow_provider_gpu_cluster.watch.errands import Cancellation, Errand
from airflow_provider_gpu_cluster.watch.events import Failure, Outage
from airflow_provider_gpu_cluster.watch.mailbox import Mailbox
from airflow_provider_gpu_cluster.watch.polling import Polling

log = logging.getLogger(__name__)

# How long the connection is kept for the next job.
LINGER_S = 30.0
# Pauses between two tries to connect; the last one is the longest for a new subscription, launch or cancellation.
SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
NEWCOMER_PAUSE_S = 3.0
# After a connection that lived so long, the watcher reconnects at once.
STEADY_S = 10.0
# If a cluster ends the program so many times, each time within so many seconds, it forbids long commands.
REFUSALS = 3
UNWANTED_S = 60.0
POLLING_S = 600.0
GAUGES_EVERY_S = 10.0


class WatchLoop:
    """
    Works until the mailbox has been empty for a while.

    :param conn_id: the cluster's connection, for messages.
    :param make_cluster: makes the cluster, again for each connection.
    """

    def __init__(self, conn_id: str, mailbox: Mailbox, make_cluster: Callable[[], Cluster]) -> None:
        self._conn_id = conn_id
        self._mailbox = mailbox
        self._make_cluster = make_cluster
        self._was_connected = False
        self._gauges_at = -math.inf
        self._heard_at = time.monotonic()
        self._tried_at = -math.inf
        self._up_since: float | None = None
        self._is_out = False
        self._pauses = 0
        self._refusals = 0
        self._polls_until = -math.inf

    def run(self) -> None:
        """Work until the end."""
        while not self._mailbox.retire(0):
            try:
                self._connect_and_serve()
            except WatchRefused as refusal:
                self._go_on_after(refusal.error, is_refusal=True)
            except GpuClusterConnectionError as error:
                self._go_on_after(error, is_refusal=False)
            except GpuClusterError as error:
                self._give_up(error)
            except Exception as error:
                log.exception("the watcher of connection %s failed", self._conn_id)
                self._give_up(GpuClusterError(f"connection {self._conn_id}: watching its jobs failed: {error!r}"))

    def _connect_and_serve(self) -> None:
        self._up_since = None
        self._tried_at = time.monotonic()
        self._mailbox.urgent = False
        self._mailbox.take_outdated()
        with self._connection() as cluster:
            # Cancelling works even on a cluster that forbids watching.
            self._cancel(cluster)
            if time.monotonic() < self._polls_until:
                self._serve(cluster, Polling(cluster), self._polls_until)
                return
            try:
                channel = WatchChannel(cluster)
            except GpuClusterConnectionError:
                raise
            except GpuClusterError as error:
                # Polling the jobs will show whether the whole cluster is unusable.
                self._fall_back(error)
                return
            with contextlib.closing(channel):
                self._serve(cluster, channel, math.inf)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Cluster]:
        try:
            cluster = self._make_cluster().retrying_for(0)
            cluster.open()
        except GpuClusterError:
            raise
        except Exception as error:
            # The first time, there may be no such connection. Later, Airflow cannot tell us just now.
            error_class = GpuClusterConnectionError if self._was_connected else GpuClusterSetupError
            raise error_class(f"connection {self._conn_id} cannot be read: {error}") from error
        if self._was_connected:
            count(metrics.RECONNECTS, {"conn_id": self._conn_id})
        self._was_connected = True
        with cluster:
            yield cluster

    def _serve(self, cluster: Cluster, source: WatchChannel | Polling, until: float) -> None:
        """
        Tell subscriptions what comes from a source, until that time, until there are none any more, or until another
        connection is wanted.
        """
        for subscription in self._mailbox.subscriptions():
            source.change(subscription)
        for errand in self._mailbox.sent():
            source.send(errand)
        while time.monotonic() < until and not self._mailbox.retire(LINGER_S):
            if self._mailbox.take_outdated():
                return
            self._cancel(cluster)
            for subscription in self._mailbox.take_changed():
                source.change(subscription)
            for errand in self._mailbox.take_sent():
                source.send(errand)
            source.work()
            if self._up_since is None:
                self._up_since = time.monotonic()
                self._is_out, self._mailbox.outage = False, None
                log.info("jobs on %s are watched", cluster.settings.name)
            self._send_gauges(source.silent_s)
            self._mailbox.wait(min(source.due, until), linger_s=LINGER_S, fileno=source.fileno())

    def _send_gauges(self, silent_s: float) -> None:
        now = time.monotonic()
        self._heard_at = now - silent_s
        if now >= self._gauges_at:
            self._gauges_at = now + GAUGES_EVERY_S
            tags = {"conn_id": self._conn_id, "host": socket.gethostname()}
            gauge(metrics.WATCHED_JOBS, tags, self._mailbox.watched)
            gauge(metrics.WATCH_LAG, tags, round(silent_s, 3))

    # -- when it does not work

    def _go_on_after(self, error: GpuClusterConnectionError, *, is_refusal: bool) -> None:
        """Try again: at once if a working connection broke, else after longer and longer pauses."""
        up_s = None if self._up_since is None else time.monotonic() - self._up_since
        if up_s is None:
            self._tell_outage(error)
        else:
            log.info("the connection for watching jobs broke: %s", error)
            if up_s >= STEADY_S:
                self._pauses = 0
            if up_s >= UNWANTED_S:
                self._refusals = 0
        if is_refusal and (up_s is None or up_s < UNWANTED_S):
            self._refusals += 1
            if self._refusals >= REFUSALS:
                self._fall_back(error)
                return
        if up_s is None or self._pauses:
            self._pause()
        self._pauses += 1

    def _pause(self) -> None:
        longest = min(LONGEST_PAUSE_S, SHORTEST_PAUSE_S * 2 ** min(self._pauses, 16))
        until = time.monotonic() + max(SHORTEST_PAUSE_S, longest * random.uniform(0.5, 1))
        while not self._mailbox.retire(0):
            if self._mailbox.urgent:
                until = min(until, self._tried_at + NEWCOMER_PAUSE_S)
            if time.monotonic() >= until:
                return
            self._mailbox.wait(until, linger_s=0)

    def _fall_back(self, error: GpuClusterError) -> None:
        log.warning("jobs are polled at intervals for the next %.0f min: %s", POLLING_S / 60, error)
        self._polls_until = time.monotonic() + POLLING_S

    def _tell_outage(self, error: GpuClusterConnectionError) -> None:
        log.log(logging.DEBUG if self._is_out else logging.WARNING, "jobs cannot be watched now: %s", error)
        self._is_out, self._mailbox.outage = True, error
        self._send_gauges(time.monotonic() - self._heard_at)
        subscriptions = self._mailbox.subscriptions()
        for subscription in subscriptions:
            subscription.deliver(Outage(error))
        self._fail_errands(error)
        if not subscriptions:
            self._forget_what_was_told()

    def _give_up(self, error: GpuClusterError) -> None:
        log.warning("jobs are no longer watched: %s", error)
        self._polls_until = -math.inf
        for subscription in self._mailbox.subscriptions():
            subscription.deliver(Failure(error))
        self._fail_errands(error)
        self._forget_what_was_told()

    def _fail_errands(self, error: GpuClusterError) -> None:
        errands: list[Errand[Any]] = [
            *self._mailbox.take_cancellations(),
            *self._mailbox.launches(),
            *self._mailbox.calls(),
        ]
        for errand in errands:
            errand.fail(error)

    def _forget_what_was_told(self) -> None:
        """Do not wait to note it: at worst, somebody is told twice."""
        for note in self._mailbox.tell_notes():
            note.succeed(None)

    # -- cancelling

    def _cancel(self, cluster: Cluster) -> None:
        """Cancel all jobs that are to be cancelled, in one call per requester."""
        waiting = self._mailbox.take_cancellations()
        by_requester: dict[str, list[Cancellation]] = {}
        for cancellation in waiting:
            by_requester.setdefault(cancellation.requested_by, []).append(cancellation)
        try:
            for together in by_requester.values():
                _cancel_together(cluster, together)
        except Exception:
            # The next connection tries again. If there is none, the requesters get the error.
            self._mailbox.give_back([cancellation for cancellation in waiting if not cancellation.future.done()])
            raise


def _cancel_together(cluster: Cluster, together: list[Cancellation]) -> None:
    keys = {one.job_id: one.request_key for one in together if one.request_key is not None}
    try:
        statuses = cluster.cancel(
            [one.job_id for one in together], requested_by=together[0].requested_by, request_keys=keys
        )
    except GpuClusterConnectionError:
        raise
    except GpuClusterError as error:
        if len(together) == 1:
            together[0].fail(error)
            return
        # One failure must not prevent the other cancellations.
        for one in together:
            _cancel_together(cluster, [one])
        return
    for one, status in zip(together, statuses, strict=True):
        one.succeed(status)
