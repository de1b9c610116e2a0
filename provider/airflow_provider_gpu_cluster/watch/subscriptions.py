"""The jobs that somebody waits for or looks on at, as the watcher's thread knows them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.logs.relay import LogPosition
from airflow_provider_gpu_cluster.watch.events import Failure, Points, Printed, WatchEvent
from airflow_provider_gpu_cluster.watch.keys import next_key

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.following import TailPlace
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import NotifyWhen
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Acknowledgement

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ack:
    """
    The place up to which a reader has processed a job's output.

    :param note: JSON values that the cluster stores with it.
    """

    position: LogPosition
    note: dict[str, Any]

    def to_json(self) -> Acknowledgement:
        """Return it in the cluster's form."""
        return {"attempt": self.position.attempt, "offset": self.position.offset, "note": self.note}


class Subscription:
    """One job that somebody waits for. :meth:`ack` and :meth:`close` work from any thread, without blocking."""

    __slots__ = (
        "_changed",
        "_notify",
        "closed",
        "job_id",
        "key",
        "latest_ack",
        "poll_interval_s",
        "reader",
        "when",
    )

    def __init__(
        self,
        changed: Callable[[Subscription], object],
        job_id: str,
        notify: Callable[[WatchEvent], object],
        reader: str | None,
        poll_interval_s: float,
        when: NotifyWhen | None,
    ) -> None:
        self.key = next_key()
        self.when = when
        self.job_id = job_id
        self.reader = reader
        self.poll_interval_s = poll_interval_s
        self.latest_ack: Ack | None = None
        self.closed = False
        self._notify = notify
        self._changed = changed

    def ack(self, position: LogPosition, note: dict[str, Any]) -> None:
        """
        Acknowledge the output up to a place; the event :class:`.Acked` says when the cluster knows.

        If acknowledgements follow each other quickly, only the newest is sent. An acknowledgement ahead of the
        delivered output skips the output in between.

        :param note: JSON values that the next reader gets back with :class:`.Place`.
        """
        self.latest_ack = Ack(position, note)
        self._changed(self)

    def close(self) -> None:
        """Stop watching the job. An event that is just being delivered may still arrive."""
        if not self.closed:
            self.closed = True
            self._changed(self)

    def deliver(self, event: WatchEvent) -> None:
        """Deliver an event, in the watcher's thread; a subscriber that raises gets no more events."""
        if self.closed:
            return
        try:
            self._notify(event)
        except Exception as error:
            log.info("job %s is no longer watched: its subscriber raised an error (%r)", self.job_id, error)
            self.close()
        if isinstance(event, Failure):
            self.close()


class Following(Subscription):
    """One job at which somebody looks on. :meth:`want` and :meth:`close` work from any thread, without blocking."""

    __slots__ = ("_places", "tails")

    def __init__(
        self,
        changed: Callable[[Subscription], object],
        job_id: str,
        notify: Callable[[WatchEvent], object],
        tails: frozenset[str],
        poll_interval_s: float,
    ) -> None:
        super().__init__(changed, job_id, notify, None, poll_interval_s, None)
        self.tails = tails
        self._places: dict[str, TailPlace] = {}

    def want(self, tails: frozenset[str]) -> None:
        """Get what is new in these files of the job from now on, see :data:`.protocol.following.TAILS`."""
        if tails != self.tails:
            self.tails = tails
            self._changed(self)

    @property
    def places(self) -> dict[str, TailPlace | None]:
        """Where to go on in each of these files; None for its present end."""
        places = dict(self._places)
        return {name: places.get(name) for name in self.tails}

    def deliver(self, event: WatchEvent) -> None:
        """Deliver an event, and note what was delivered."""
        if isinstance(event, Printed):
            self._note("log", {"file": event.news["file"], "offset": event.news["end"]})
        elif isinstance(event, Points):
            self._note(event.tail, event.news["place"])
        super().deliver(event)

    def _note(self, tail: str, place: TailPlace) -> None:
        # Of a file that nobody wants any more, what comes later begins at its end then.
        self._places = {name: known for name, known in self._places.items() if name in self.tails}
        self._places[tail] = place
