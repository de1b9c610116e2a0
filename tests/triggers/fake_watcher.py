"""A watcher that tells what a test says. It is a fake, and watches nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.logs.relay import LogPosition, Output
from airflow_provider_gpu_cluster.watch.events import Acked, Place, WatchEvent


class FakeSubscription:
    """One job that a trigger waits for."""

    def __init__(self, watcher: FakeWatcher, notify: Callable[[WatchEvent], object], reader: str | None) -> None:
        self.reader = reader
        self.acks: list[tuple[LogPosition, dict[str, Any]]] = []
        self.closed = False
        self._watcher = watcher
        self._notify = notify

    def tell(self, *events: WatchEvent) -> None:
        """Tell the trigger something."""
        for event in events:
            self._notify(event)

    def ack(self, position: LogPosition, note: dict[str, Any]) -> None:
        self.acks.append((position, note))
        if self._watcher.acknowledges:
            self.tell(Acked(position))

    def close(self) -> None:
        self.closed = True


class FakeWatcher:
    """
    Stands in for a :class:`.Watcher`.

    :param events: what to tell each trigger at once.
    :param acknowledges: whether the cluster notes up to where output was dealt with.
    """

    name = "me@fake:22"

    def __init__(self, *events: WatchEvent, acknowledges: bool = True) -> None:
        self.events = events
        self.acknowledges = acknowledges
        self.subscriptions: dict[str, FakeSubscription] = {}
        self.cancelled: list[tuple[str, str]] = []
        self.launches_stopped: list[str | None] = []
        self.launches: list[Future[Submission]] = []
        """What becomes of each launch; a test says so."""
        self.launched: list[dict[str, Any]] = []
        self.asked_to_notify: dict[str, Any] = {}
        self.noted: list[tuple[str, str]] = []
        self.answer: Future[JobStatus] = Future()
        """What becomes of cancelling; by default it works."""
        self.answer.set_result(JobStatus("job-1", JobState.CANCELLED, reason="cancelled"))

    def subscribe(
        self,
        job_id: str,
        notify: Callable[[WatchEvent], object],
        *,
        reader: str | None,
        poll_interval_s: float,
        when: Any = None,
    ) -> FakeSubscription:
        self.asked_to_notify[job_id] = when
        subscription = self.subscriptions[job_id] = FakeSubscription(self, notify, reader)
        subscription.tell(*self.events)
        return subscription

    def note_told(self, job_id: str, notice: Any) -> None:
        self.noted.append((job_id, notice["event"]))

    def launch(self, request: dict[str, Any]) -> Future[Submission]:
        self.launched.append(request)
        return self.launches[len(self.launched) - 1]

    def cancel(self, job_id: str, *, requested_by: str, request_key: str | None = None) -> Future[JobStatus]:
        self.cancelled.append((job_id, requested_by))
        self.launches_stopped.append(request_key)
        return self.answer


def status(state: JobState, log: bytes = b"", **more: Any) -> JobStatus:
    """Return how the first attempt of a job stands that has printed so much."""
    return JobStatus("job-1", state, **{"attempt": 1, "log_bytes": len(log), **more})


def printed(log: bytes, start: int = 0, *, note: dict[str, Any] | None = None) -> list[WatchEvent]:
    """Return the events by which the first attempt's output arrives from a place on."""
    place = LogPosition(1, start)
    return [Place(place, note), Output(place, log[start:], len(log))]
