"""
What of a job is to be told to people now, as they have asked for it; see docs/notifications.md.

The cluster decides that whenever somebody looks at the job anyway, by its own clock and from its own files.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Sequence

from .. import protocol
from ..errors import Refused
from ..linux.disk_clock import time_of_disk
from ..protocol import notices
from ..reply import Reply
from ..store.directories import Attempt, JobDirectory, Root
from ..store.told import ToldEvent

if TYPE_CHECKING:
    from typing import Any

    from ..protocol.notices import Notice, NotifyWhen
    from ..protocol.requests import ToldRequest
    from ..protocol.status import Status

# A job that has gone on more often than this since the last look does not flood anybody.
_MOST_RECOVERIES = 10
_LONGEST_NAME = 80


class Facts(NamedTuple):
    """
    What the conditions depend on. Times are in seconds; None if it does not apply to the job as it is now.

    :param queued_s: how long it has waited for its GPUs.
    :param quiet_s: how long it has run without progress.
    :param left_s: how much is left of its time limit.
    :param idle_s: how long it has left its GPUs idle, once that was its whole window.
    :param recovered: the attempts that have followed others.
    """

    attempt: int
    queued_s: float | None = None
    quiet_s: float | None = None
    left_s: float | None = None
    idle_s: float | None = None
    recovered: Sequence[int] = ()


def due(when: NotifyWhen, facts: Facts) -> list[Notice]:
    """Return what is to be told of a job, if it was not told before. Pure."""
    found: list[Notice] = [
        {"event": notices.RECOVERED, "attempt": number} for number in facts.recovered if when.get("recovered")
    ]
    queued_for, no_progress_for, time_limit_in = (
        when.get("queued_for"),
        when.get("no_progress_for"),
        when.get("time_limit_in"),
    )
    if queued_for is not None and facts.queued_s is not None and facts.queued_s >= queued_for:
        found.append(_lasting(notices.QUEUED_FOR, facts.attempt, queued_for, facts.queued_s))
    if no_progress_for is not None and facts.quiet_s is not None and facts.quiet_s >= no_progress_for:
        found.append(_lasting(notices.NO_PROGRESS_FOR, facts.attempt, no_progress_for, facts.quiet_s))
    if time_limit_in is not None and facts.left_s is not None and facts.left_s <= time_limit_in:
        left: Notice = {"event": notices.TIME_LIMIT_IN, "attempt": facts.attempt, "limit_s": time_limit_in}
        left["left_s"] = max(0.0, facts.left_s)
        found.append(left)
    if when.get("idle") and facts.idle_s is not None:
        found.append({"event": notices.IDLE, "attempt": facts.attempt, "for_s": facts.idle_s})
    return found


def _lasting(event: str, attempt: int, limit_s: float, for_s: float) -> Notice:
    return {"event": event, "attempt": attempt, "limit_s": limit_s, "for_s": for_s}


def next_due_s(when: NotifyWhen, facts: Facts) -> float:
    """Return after how many seconds something may become due that is not due now; infinity for never. Pure."""
    waits = (
        _left(when.get("queued_for"), facts.queued_s),
        _left(when.get("no_progress_for"), facts.quiet_s),
        _left(facts.left_s, when.get("time_limit_in")),
    )
    return min((wait for wait in waits if wait > 0), default=math.inf)


def _left(until: float | None, now: float | None) -> float:
    return math.inf if until is None or now is None else until - now


class JobNotices:
    """
    What one looker is to tell of a job.

    :param when: what is to be told.
    """

    def __init__(self, root: Root, job: JobDirectory, when: NotifyWhen) -> None:
        self._root = root
        self._job = job
        self._when = when
        self._sent: set[tuple[str, int]] = set()
        self._look_at = -math.inf
        self._idle = ""

    def take(self, status: Status) -> list[Notice]:
        """
        Return what is due and nobody else tells; the caller has to tell it now.

        :param status: the job's status, as it is at this moment.
        """
        # A fault of the disk, or a record that the job has spoilt, keeps nobody from the status.
        with contextlib.suppress(Exception):
            return self._take(status)
        return []

    def _take(self, status: Status) -> list[Notice]:
        number = status.get("attempt", 0)
        if not number or status.get("elements"):
            return []
        attempt = self._job.attempt(number)
        self._idle = attempt.at("idle.json")
        facts = facts_of(attempt, status, self._when)
        # Its time begins when its environment has been built.
        is_starting = status["state"] == protocol.RUNNING and facts.quiet_s is None
        self._look_at = time.monotonic() + (0.0 if is_starting else next_due_s(self._when, facts))
        taken = [self._taken(attempt, status, notice) for notice in due(self._when, facts)]
        return [notice for notice in taken if notice is not None]

    def _taken(self, attempt: Attempt, status: Status, notice: Notice) -> Notice | None:
        key = (notice["event"], notice["attempt"])
        if key in self._sent:
            return None
        told = told_of(self._root, attempt, notice["event"], notice["attempt"], status.get("log_attempt"))
        if told is None or told.is_sent():
            self._sent.add(key)
            return None
        # Somebody may fail to send it.
        self._look_at = 0.0
        with contextlib.suppress(OSError, Refused):
            notice["tries"] = told.take()
            return notice if notice["tries"] else None
        return None

    def may_be_due(self) -> bool:
        """Return whether it is worth the price of a status to see what is due; for the time between two of them."""
        if time.monotonic() >= self._look_at:
            return True
        return bool(self._when.get("idle")) and bool(self._idle) and os.access(self._idle, os.F_OK)


def told_of(root: Root, attempt: Attempt, event: str, number: int, first: int | None) -> ToldEvent | None:
    """
    Return the note that says who tells of an event; None if it is not told of this job.

    Of an array, each event is told for the first element that meets it, and waiting only for the first element: a
    person wants one message, not thousands.

    :param number: of the attempt that the event is about.
    :param first: number of the attempt with which its log begins.
    """
    request = attempt.recorded_request()
    array = None if request is None else request.get("array")
    if array is None:
        return ToldEvent(attempt.job, (".job", "attempts", str(number), "told"), event)
    if event == notices.QUEUED_FOR and array["index"]:
        return None
    return ToldEvent(root.job(array["job_id"]), (".job", "told"), f"{event}-{first or number}")


def facts_of(attempt: Attempt, status: Status, when: NotifyWhen) -> Facts:
    """Return the facts about a job, by its status and its files."""
    facts = Facts(attempt.number, recovered=_recovered(status))
    state = status["state"]
    if state == protocol.QUEUED:
        return facts._replace(queued_s=_since(status.get("submitted_at")))
    if state == protocol.RUNNING:
        idle: Any = status.get("idle")
        started_s = _running_s(attempt, status)
        return facts._replace(
            quiet_s=None if started_s is None else _quiet_s(attempt, started_s, when.get("no_progress_for")),
            left_s=_left_s(attempt, started_s),
            idle_s=float(idle["idle_s"]) if isinstance(idle, dict) and idle.get("level") == "whole" else None,
        )
    if status.get("reason") == protocol.IDLE:
        # Whoever looks now has not seen it idle.
        return facts._replace(idle_s=0.0)
    return facts


def _recovered(status: Status) -> Sequence[int]:
    first, last = status.get("log_attempt"), status.get("attempt", 0)
    if first is None or status["state"] == protocol.UNKNOWN:
        return ()
    return range(max(first + 1, last + 1 - _MOST_RECOVERIES), last + 1)


def _since(at: str | None) -> float | None:
    return None if at is None else time.time() - datetime.fromisoformat(at).timestamp()


def _running_s(attempt: Attempt, status: Status) -> float | None:
    """Return for how long its code has run; None while its environment is built."""
    claimed_s = _since(status.get("started_at"))
    with contextlib.suppress(OSError):
        # Written just before the start of its code; missing until then.
        written_s = time.time() - os.stat(attempt.at("log_starts.json")).st_mtime
        return claimed_s if claimed_s is None else min(claimed_s, max(0.0, written_s))
    return None


def _left_s(attempt: Attempt, running_s: float | None) -> float | None:
    request = attempt.recorded_request()
    limit_s = None if request is None else request["spec"].get("time_limit_s")
    return None if not limit_s or running_s is None else limit_s - running_s


def _quiet_s(attempt: Attempt, running_s: float, limit_s: float | None) -> float:
    """
    Return for how long it has made no progress: a job that has written to its PROGRESS_FILE has not done so, and
    another one has printed nothing.

    :param limit_s: only a longer time has to be exact.
    """
    written_at = _written_at(attempt)
    if written_at is None:
        return running_s
    quiet_s = time.time() - written_at
    if limit_s is not None and quiet_s >= limit_s:
        # A network file system sets these times by the clock of its server.
        quiet_s = time_of_disk(attempt.job.at(".job")) - written_at
    return min(running_s, quiet_s) if quiet_s >= 0 else running_s


def _written_at(attempt: Attempt) -> float | None:
    for name in ("progress.jsonl", "training.log"):
        with contextlib.suppress(OSError):
            # A job may keep its output elsewhere, and put a link here.
            found = os.stat(attempt.job.at("logs", name))
            if found.st_size:
                return found.st_mtime
    return None


def take_notices(root: Root, status: Status, when: NotifyWhen | None) -> None:
    """Put into a status what the one who gets it has to tell."""
    if when:
        taken = JobNotices(root, root.job(status["job_id"]), when).take(status)
        if taken:
            status["due"] = taken


def answer(root: Root, request: ToldRequest) -> Reply:
    """Carry out the verb ``told``."""
    job_id, event, number = request["job_id"], request["event"], request["attempt"]
    if request.get("take"):
        return Reply({"tries": take(root, job_id, event, number)})
    note_told(root, job_id, event, number)
    return Reply({"tries": 0})


def note_told(root: Root, job_id: str, event: str, number: int) -> None:
    """
    Note that an event was told, so that nobody tells it again.

    :raises Refused: there is no such event, or no job could have that id.
    :raises OSError: the disk has a fault, or is full.
    """
    told = _told(root, job_id, event, number)
    if told is not None:
        told.note_sent()


def take(root: Root, job_id: str, event: str, number: int) -> int:
    """
    Become the one who tells of an event; return the number of this try, or 0 if somebody else does or has done so.

    :raises Refused: there is no such event, or no job could have that id.
    :raises OSError: the disk has a fault, or is full.
    """
    told = _told(root, job_id, event, number)
    return 0 if told is None else told.take()


def _told(root: Root, job_id: str, event: str, number: int) -> ToldEvent | None:
    end, *rest = event.split("-")
    is_end = end in notices.ENDS and len(event) <= _LONGEST_NAME and all(re.fullmatch("[a-z0-9]+", one) for one in rest)
    if event not in notices.NOTICES and not is_end:
        raise Refused(protocol.BAD_REQUEST, f"there is no event {event[:100]!r} of a job to tell")
    attempt = root.job(job_id).attempt(number)
    request = attempt.recorded_request()
    recovery = None if request is None else request.get("recovery")
    return told_of(root, attempt, event, number, None if recovery is None else recovery["first"])
