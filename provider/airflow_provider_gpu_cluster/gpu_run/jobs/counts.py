"""What has happened to a job and was not counted yet, so that each event is counted once, whoever looks at the job."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Iterable, cast

from .. import protocol
from ..protocol import notices
from ..store import records
from ..store.directories import Attempt, Root
from ..store.told import is_counted_now

if TYPE_CHECKING:
    from ..protocol.notices import Counted
    from ..protocol.status import Status
    from ..protocol.usage import Seconds

_PARTS = ("queued", "staging", "building", "running", "idle")


def count(root: Root, statuses: Iterable[Status]) -> list[Counted]:
    """
    Return what the one who gets these statuses has to count.

    An event that nobody gets because the reply is lost is not counted; the ledger is exact.
    """
    found: list[Counted] = []
    for status in statuses:
        # Nothing that is wrong with one job, or with the disk, matters here.
        with contextlib.suppress(Exception):
            found += _of_job(root, status)
    return found


def _of_job(root: Root, status: Status) -> list[Counted]:
    latest = status.get("attempt", 0)
    if not latest or status.get("elements") or status["state"] == protocol.UNKNOWN:
        return []
    job = root.job(status["job_id"])
    attempt = job.attempt(latest)
    found: list[Counted] = []
    is_final = status["state"] in protocol.FINAL_STATES
    has_started = (is_final or status["state"] == protocol.RUNNING) and status.get("started_at")
    if has_started and _is_new(attempt, notices.STARTED):
        started = _event(attempt, notices.STARTED)
        queued_s = _seconds(status.get("submitted_at"), status.get("leased_at") or status.get("started_at"))
        if queued_s is not None:
            started["seconds"] = {"queued": queued_s}
        found.append(started)
    if is_final and _is_new(attempt, notices.ENDED):
        ended = _event(attempt, notices.ENDED)
        ended["state"] = status["state"]
        ended["reason"] = status.get("reason") or ""
        ended["seconds"] = _parts(status)
        ended["gpu_seconds"] = status.get("gpu_seconds") or 0.0
        found.append(ended)
    return found + _recoveries(attempt, status)


def _recoveries(attempt: Attempt, status: Status) -> list[Counted]:
    """Return the attempts that have followed others since the last look, from the latest one back."""
    found: list[Counted] = []
    past: dict[int, Any] = {one["attempt"]: one for one in status.get("attempts", []) if "attempt" in one}
    for number in range(attempt.number, status.get("log_attempt") or attempt.number, -1):
        if not _is_new(attempt.job.attempt(number), notices.RECOVERED):
            break
        recovered = _event(attempt.job.attempt(number), notices.RECOVERED)
        before = past.get(number - 1, {})
        recovered["reason"] = before.get("reason") or ""
        recovered["gpu_seconds"] = before.get("gpu_seconds") or 0.0
        found.append(recovered)
        if before.get("started_at") and _is_new(attempt.job.attempt(number - 1), notices.STARTED):
            found.append(_event(attempt.job.attempt(number - 1), notices.STARTED))
    return found


def _is_new(attempt: Attempt, event: str) -> bool:
    return is_counted_now(attempt.at(f"{event}.counted"))


def _event(attempt: Attempt, event: str) -> Counted:
    counted: Counted = {"event": event, "job_id": attempt.job.job_id, "attempt": attempt.number}
    with contextlib.suppress(Exception):
        request = attempt.recorded_request()
        by: Any = {} if request is None else request["by"]
        for name in ("dag_id", "task_id"):
            if isinstance(by.get(name), str):
                cast("dict[str, Any]", counted)[name] = by[name]
    return counted


def _parts(status: Status) -> Seconds:
    """Return how long each part of an attempt took, as far as its record says it, or its times do."""
    parts: dict[str, Any] = {}
    queued_s = _seconds(status.get("submitted_at"), status.get("leased_at") or status.get("started_at"))
    running_s = _seconds(status.get("started_at"), status.get("ended_at"))
    for name, seconds in (("queued", queued_s), ("running", running_s)):
        if seconds is not None:
            parts[name] = seconds
    told: Any = status.get("seconds") or {}
    parts.update({name: told[name] for name in _PARTS if isinstance(told.get(name), (int, float))})
    return cast("Seconds", parts)


def _seconds(start: str | None, end: str | None) -> float | None:
    return None if start is None or end is None else max(0.0, records.seconds_between(start, end))
