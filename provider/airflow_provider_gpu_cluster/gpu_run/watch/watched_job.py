"""One job that a client watches: what the client knows about it, and what to tell the client."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Sequence

from .. import protocol
from ..jobs.counts import count
from ..jobs.notices import JobNotices
from ..jobs.status import status_or_unknown, tail_of
from ..linux import processes
from ..protocol.orphan_timeout import orphan_timeout_s
from ..store.asked import note_asked
from ..store.directories import Root
from ..store.idle_notes import IDLE
from .output import Cursor, open_log_of

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.events import AckedEvent, Event, PlaceEvent, StatusEvent
    from ..protocol.notices import Counted, NotifyWhen
    from ..protocol.records import ProcessIdentity
    from ..protocol.requests import Acknowledgement
    from ..protocol.status import Status

FULL_LOOK_S = 10.0
PROGRESS_S = 2.0
# How often a job is noted as asked for, which has to be several times in its orphan_timeout.
_ASKED_S = 10.0
_TIMES_ASKED = 4
WINDOW_BYTES = 1 << 17
PIECE_BYTES = 1 << 15
_TAIL_BYTES = 4096
_LONG_AGO = float("-inf")
# What changes while a job runs, and is shown: its progress, why there is none, and that it is idle.
_SHOWN = ("progress", "notes", "idle")


class WatchedJob:
    """
    A job as one subscriber sees it.

    There are two ways to look at it. A glance is a handful of ``stat`` calls: is there a new record, or has a file
    grown? If so, a full look is worth its price. Full looks also happen from time to time, for changes that no ``stat``
    shows: a supervisor that was killed, another place in the queue, a directory that is gone.

    :param key: the client's name for it.
    :param reader: the name of the reader of its output; None when nobody reads it.
    :param notify: when the client wants to tell people about the job; None for never.
    :raises Refused: the job id could name something outside the root.
    """

    def __init__(self, key: int, root: Root, job_id: str, reader: str | None, notify: NotifyWhen | None = None) -> None:
        #: When it is time for either look; kept here for the caller.
        self.glance_at = self.full_look_at = 0.0
        self._key = key
        self._root = root
        self._job = root.job(job_id)
        self._log = self._job.at("logs", "training.log")
        self._progress = self._job.at("logs", "progress.jsonl")
        self._cursor = None if reader is None else Cursor(self._job, reader)
        self._notices = JobNotices(root, self._job, notify) if notify else None
        # What the client was told. Minor changes are told less often than they happen.
        self._told: Status | None = None
        self._message_told_at = _LONG_AGO
        self._progress_told_at = _LONG_AGO
        self._progress_at = _LONG_AGO
        # As of the last full look.
        self._attempt = self._log_number = 0
        self._state = protocol.UNKNOWN
        self._is_over = True
        self._supervisor: ProcessIdentity | None = None
        self._asked_every_s, self._asked_at = _ASKED_S, _LONG_AGO
        self._seen: set[str] = set()
        self._progress_seen: tuple[int, int] | None = None
        self._idle_seen: tuple[int, int] | None = None
        self._name_records()
        # Offsets in the log of that number: its end, where to send from, and what was acknowledged.
        self._log_bytes = 0
        self._sent = 0
        self._acknowledged = 0

    def _name_records(self) -> None:
        attempt = self._job.attempt(self._attempt)
        self._claim, self._exit, self._idle = (attempt.at(name) for name in ("claim.json", "exit.json", IDLE))
        self._next = self._job.attempt(self._attempt + 1).path

    #: Whether who looks keeps the job, or all elements of an array, from being ended as one that nobody asks about.
    _counts_as_asking = True

    def note_asked(self, now: float) -> None:
        """Note that somebody asks about it, as long as it is watched."""
        if now >= self._asked_at + self._asked_every_s:
            self._asked_at = now
            note_asked(self._job.path)

    def _often_enough_s(self) -> float:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            request = self._job.attempt(self._attempt).recorded_request()
            timeout_s = request and orphan_timeout_s(request["spec"], request["settings"])
            if timeout_s:
                return min(_ASKED_S, timeout_s / _TIMES_ASKED)
        return _ASKED_S

    @property
    def folder(self) -> str:
        """The folder in which the next record will appear."""
        return os.path.dirname(self._next if self._is_over else self._exit)

    def glance(self, now: float) -> bool:
        """Return whether a full look is worth its price. Note the present size of the output."""
        if self._is_over:
            return self._is_news(self._next)
        if self._is_news(self._exit):
            return True
        if self._state != protocol.RUNNING and self._is_news(self._claim):
            return True
        if self._state == protocol.QUEUED:
            return False
        if self._cursor is not None and self._room > 0:
            log = _stamp(self._log)
            self._log_bytes = log[0] if log else 0
        if _stamp(self._idle) != self._idle_seen:
            return True
        if now < self._progress_at:
            return False
        self._progress_at = now + PROGRESS_S
        return _stamp(self._progress) != self._progress_seen

    def _is_news(self, record: str) -> bool:
        return os.access(record, os.F_OK) != (record in self._seen)

    def is_well(self) -> bool:
        """
        Return whether it runs, its supervisor lives, its claim exists, and nothing is to be told about it; a glance
        shows all other changes.
        """
        if self._notices is not None and self._notices.may_be_due():
            return False
        supervisor = self._supervisor
        return supervisor is not None and os.access(self._claim, os.F_OK) and bool(processes.is_alive(supervisor))

    def look(self, engine: Engine, now: float) -> list[Event]:
        """
        Look at everything.

        :param engine: a fresh one, since it looks at some things only once.
        :return: the events to send, except output.
        """
        # Checked first, so that a record that appears during the look is news for the next glance.
        seen = {record for record in (self._claim, self._exit, self._next) if os.access(record, os.F_OK)}
        progress_seen, idle_seen = _stamp(self._progress), _stamp(self._idle)
        status = status_or_unknown(self._root, engine, self._job.job_id, counts=self._counts_as_asking)
        attempt = status.get("attempt", 0)
        is_final = status["state"] in protocol.FINAL_STATES
        if is_final and attempt and status["state"] != protocol.SUCCEEDED:
            status["log_tail"] = tail_of(self._root, status, _TAIL_BYTES)
        due = [] if self._notices is None else self._notices.take(status)
        counted = self._count(status)
        events: list[Event] = []
        if self._is_worth_telling(status, now) or due or counted:
            self._told = status
            event: StatusEvent = {"event": "status", "key": self._key, "status": status}
            if due:
                event["status"] = {**status, "due": due}
            if counted:
                event["counted"] = counted
            events.append(event)
        if not self._differs(status, *_SHOWN):
            self._progress_seen, self._idle_seen = progress_seen, idle_seen
        self._seen = seen
        self._state = status["state"]
        self._log_bytes = status.get("log_bytes", 0)
        if attempt and attempt != self._attempt:
            self._attempt = attempt
            self._name_records()
            self._asked_every_s = self._often_enough_s()
        number = status.get("log_attempt", attempt)
        if number and number != self._log_number:
            self._log_number = number
            events += self._place()
        # After an end that is not the job's, another attempt follows.
        self._is_over = is_final or not self._attempt or self._exit in seen
        self._supervisor = self._living_supervisor() if self._state == protocol.RUNNING else None
        return events

    def _count(self, status: Status) -> list[Counted]:
        """Return what has happened and is to be counted by the client."""
        return count(self._root, [status])

    def _living_supervisor(self) -> ProcessIdentity | None:
        # The job can write to its claim, so there may be anything in it. Then full looks find what a glance would.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            claim = self._job.attempt(self._attempt).claimed()
            if claim is not None and processes.is_alive(claim):
                return claim
        return None

    def _is_worth_telling(self, status: Status, now: float) -> bool:
        if self._told is None or self._differs(status, "state", "attempt", "idle"):
            return True
        if now >= self._message_told_at + FULL_LOOK_S and self._differs(status, "message", "queue_place", "reason"):
            self._message_told_at = now
            return True
        if now >= self._progress_told_at + PROGRESS_S and self._differs(status, *_SHOWN):
            self._progress_told_at = now
            return True
        return False

    def _differs(self, status: Status, *names: str) -> bool:
        """Return whether any of these values differs from what the client was told."""
        told = self._told
        # Compared as text, since a job may report NaN, which equals nothing.
        return any(repr(told and told.get(name)) != repr(status.get(name)) for name in names)

    def _place(self) -> list[PlaceEvent]:
        if self._cursor is None:
            return []
        offset, note = self._cursor.place_in(self._log_number, self._attempt)
        self._sent = self._acknowledged = offset
        return [{"event": "place", "key": self._key, "attempt": self._log_number, "offset": offset, "note": note}]

    def acknowledge(self, ack: Acknowledgement) -> list[AckedEvent]:
        """Move the reader's position to what it has acknowledged, and send nothing before it any more."""
        if self._cursor is None:
            return []
        if ack["attempt"] == self._log_number:
            self._acknowledged = max(self._acknowledged, ack["offset"])
            self._sent = max(self._sent, ack["offset"])
        self._cursor.move(ack)
        try:
            return [{"event": "acked", "key": self._key, **self._cursor.save()}]
        except OSError:
            # The next acknowledgement writes it; if none comes, the reader gets some output twice.
            return []

    @property
    def _room(self) -> int:
        return self._acknowledged + WINDOW_BYTES - self._sent

    @property
    def has_output(self) -> bool:
        """Whether there is output to send, and room for it."""
        return self._cursor is not None and self._log_bytes > self._sent and self._room > 0

    def next_piece(self) -> Sequence[Event]:
        """Return the next piece of output, if it can be read."""
        # If there is none, perhaps because the job has truncated its log, the next look finds the log's size.
        self._log_bytes = 0
        try:
            log = open_log_of(self._job, self._log_number)
            if log is None:
                return []
            with log:
                data = os.pread(log.fileno(), min(PIECE_BYTES, self._room), self._sent)
                size = os.fstat(log.fileno()).st_size
        except OSError:
            return []
        if not data:
            return []
        start = self._sent
        self._sent += len(data)
        self._log_bytes = size
        text = data.decode("utf-8", "surrogateescape")
        return [
            {
                "event": "output",
                "key": self._key,
                "attempt": self._log_number,
                "offset": start,
                "data": text,
                "log_bytes": size,
            }
        ]


def _stamp(path: str) -> tuple[int, int] | None:
    """Return the size of a file and the time of its last write; None when there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
