"""The mailbox in which other threads leave work for the thread of a watcher, and which wakes that thread."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.watch.errands import Cancellation, Launch, SentErrand, TellNote, Tray, VerbCall
from airflow_provider_gpu_cluster.watch.events import WatchEvent
from airflow_provider_gpu_cluster.watch.subscriptions import Following, Subscription

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Notice, NotifyWhen
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest

_LONGEST_WAIT_S = 3600.0
_Subscribed = TypeVar("_Subscribed", bound=Subscription)
_Sent = TypeVar("_Sent", bound="SentErrand[Any]")


class Mailbox:
    """The work of one thread of a watcher, from its start to its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: dict[int, Subscription] = {}
        self._changed: dict[int, Subscription] = {}
        self._cancellations: list[Cancellation] = []
        self._launches: Tray[Launch] = Tray()
        self._tell_notes: Tray[TellNote] = Tray()
        self._calls: Tray[VerbCall] = Tray()
        self._idle_since = time.monotonic()
        self._retired = False
        self.urgent = False
        """Whether something new has come that should not wait long for the next try to connect."""
        self.outage: GpuClusterConnectionError | None = None
        """Why the cluster was out of reach at the last try; None while it is not."""
        self._is_outdated = False
        self._news, self._bell = socket.socketpair()
        self._news.setblocking(False)
        self._bell.setblocking(False)

    # -- for other threads

    def subscribe(
        self,
        job_id: str,
        notify: Callable[[WatchEvent], object],
        reader: str | None,
        poll_interval_s: float,
        when: NotifyWhen | None = None,
    ) -> Subscription | None:
        """Add a subscription; None if the thread has ended."""
        return self._add(Subscription(self.changed, job_id, notify, reader, poll_interval_s, when))

    def follow(
        self, job_id: str, notify: Callable[[WatchEvent], object], tails: frozenset[str], poll_interval_s: float
    ) -> Following | None:
        """Add somebody who looks on; None if the thread has ended."""
        return self._add(Following(self.changed, job_id, notify, tails, poll_interval_s))

    def _add(self, subscription: _Subscribed) -> _Subscribed | None:
        with self._lock:
            if self._retired:
                return None
            self._subscriptions[subscription.key] = subscription
            self._changed[subscription.key] = subscription
            self.urgent = True
            self._ring()
        return subscription

    def changed(self, subscription: Subscription) -> None:
        """Note that a subscription was closed or has acknowledged something."""
        with self._lock:
            if self._retired:
                return
            if subscription.closed and subscription.key in self._subscriptions:
                del self._subscriptions[subscription.key]
                self._idle_since = time.monotonic()
            self._changed[subscription.key] = subscription
            self._ring()

    def cancel(self, job_id: str, requested_by: str, request_key: str | None) -> Cancellation | None:
        """Add a job to cancel; None if the thread has ended."""
        cancellation = Cancellation(job_id, requested_by, request_key)
        with self._lock:
            if self._retired:
                return None
            self._cancellations.append(cancellation)
            self._idle_since = time.monotonic()
            self.urgent = True
            self._ring()
        return cancellation

    def launch(self, request: SubmitRequest) -> Launch | None:
        """Add a job to launch; None if the thread has ended."""
        return self._send(self._launches, Launch(request), is_urgent=True)

    def note_told(self, job_id: str, notice: Notice) -> TellNote | None:
        """Add something that people were told; None if the thread has ended."""
        return self._send(self._tell_notes, TellNote(job_id, notice), is_urgent=False)

    def call(self, verb: str, request: dict[str, Any]) -> VerbCall | None:
        """Add a verb to call; None if the thread has ended. While the cluster is out of reach, it fails at once."""
        call = VerbCall(verb, request)
        if (outage := self.outage) is not None:
            call.fail(outage)
        return self._send(self._calls, call, is_urgent=True)

    def reconnect(self) -> None:
        """Let the thread end its present connection and open another."""
        with self._lock:
            if not self._retired:
                self._is_outdated = self.urgent = True
                self._ring()

    def _send(self, tray: Tray[_Sent], errand: _Sent, *, is_urgent: bool) -> _Sent | None:
        with self._lock:
            if self._retired:
                return None
            tray.add(errand)
            self.urgent = self.urgent or is_urgent
            self._ring()
        errand.future.add_done_callback(lambda future: self._forget(tray, errand))
        return errand

    def _forget(self, tray: Tray[_Sent], errand: _Sent) -> None:
        with self._lock:
            tray.forget(errand)
            self._idle_since = time.monotonic()

    def _ring(self) -> None:
        # If the socket is full of unread bytes, the thread wakes up anyway.
        with contextlib.suppress(BlockingIOError):
            self._bell.send(b"!")

    # -- for the watcher's thread

    @property
    def watched(self) -> int:
        """How many jobs are watched."""
        with self._lock:
            return len({subscription.job_id for subscription in self._subscriptions.values()})

    def subscriptions(self) -> list[Subscription]:
        """Return all current subscriptions; their earlier changes are no longer reported as changes."""
        with self._lock:
            self._changed.clear()
            return list(self._subscriptions.values())

    def take_changed(self) -> list[Subscription]:
        """Return the subscriptions that are new, were closed, or have acknowledged something."""
        with self._lock:
            changed, self._changed = list(self._changed.values()), {}
        return changed

    def launches(self) -> list[Launch]:
        """Return all launches without an answer; none of them counts as new any more."""
        with self._lock:
            return self._launches.all()

    def tell_notes(self) -> list[TellNote]:
        """Return all that the cluster has not noted; nothing of it counts as new any more."""
        with self._lock:
            return self._tell_notes.all()

    def calls(self) -> list[VerbCall]:
        """Return all calls without an answer; none of them counts as new any more."""
        with self._lock:
            return self._calls.all()

    def sent(self) -> list[Launch | TellNote | VerbCall]:
        """Return all of these."""
        return [*self.launches(), *self.tell_notes(), *self.calls()]

    def take_sent(self) -> list[Launch | TellNote | VerbCall]:
        """Return those of them that are new."""
        with self._lock:
            return [*self._launches.take(), *self._tell_notes.take(), *self._calls.take()]

    def take_outdated(self) -> bool:
        """Return whether the present connection is to be replaced."""
        with self._lock:
            is_outdated, self._is_outdated = self._is_outdated, False
        return is_outdated

    def take_cancellations(self) -> list[Cancellation]:
        """Return the jobs to cancel."""
        with self._lock:
            cancellations, self._cancellations = self._cancellations, []
        return cancellations

    def give_back(self, cancellations: list[Cancellation]) -> None:
        """Keep jobs that could not be cancelled for another try."""
        with self._lock:
            self._cancellations[:0] = cancellations
            self.urgent = self.urgent or bool(cancellations)

    @property
    def _is_idle(self) -> bool:
        trays = (self._launches, self._tell_notes, self._calls)
        return not (self._subscriptions or self._cancellations or any(tray.open for tray in trays))

    def retire(self, linger_s: float) -> bool:
        """Accept nothing more if there was nothing to do for that long; return whether that is so."""
        with self._lock:
            if not self._retired and self._is_idle and time.monotonic() >= self._idle_since + linger_s:
                self._retired, self.outage = True, None
                self._news.close()
                self._bell.close()
            return self._retired

    def wait(self, until: float, *, linger_s: float, fileno: int | None = None) -> None:
        """
        Return when new work has arrived, something can be read, or the time is up.

        :param until: when the time is up, by the monotonic clock.
        :param linger_s: after how many seconds without work the time is up as well.
        :param fileno: a file descriptor that may become readable.
        """
        poll = select.poll()
        poll.register(self._news, select.POLLIN)
        if fileno is not None:
            poll.register(fileno, select.POLLIN)
        with self._lock:
            if self._is_idle:
                until = min(until, self._idle_since + linger_s)
        seconds = max(0.0, min(until - time.monotonic(), _LONGEST_WAIT_S))
        poll.poll(math.ceil(seconds * 1000))
        with contextlib.suppress(BlockingIOError):
            self._news.recv(1 << 16)
