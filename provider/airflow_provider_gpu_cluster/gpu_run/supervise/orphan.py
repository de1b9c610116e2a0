"""Ends a job about which nobody asks any more: its ``orphan_timeout``."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Callable

from .. import protocol
from ..protocol.orphan_timeout import orphan_timeout_s
from ..protocol.placement import EXPIRED
from ..recovery.words import duration
from ..store.asked import asked_at, unasked_s
from ..store.claims import claim_by
from ..store.directories import Attempt
from ..store.renewals import is_renewed_only, renewed_at, unrenewed_s
from .stop import Cause

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest, EndFacts

_LONGEST_PAUSE_S = 5.0
_LOOKS = 8


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class OrphanLimit:
    """
    Tells when nobody has asked about a running job for as long as its ``orphan_timeout``.

    The time before its start does not count. If only renewals of its placement count, they are the questions. A
    question is seen by its mark having changed, whatever the clock that made the mark says; and while nobody can look
    for the mark, nobody can say that there is none.

    :param clock: tells seconds; by default, one that stands still while the host sleeps, unless only renewals count:
        who renews counts on the job's end, and does not know that the host sleeps.
    """

    def __init__(self, attempt: Attempt, request: AttemptRequest, *, clock: Callable[[], float] | None = None) -> None:
        self._job = attempt.job.path
        self._request = request
        self._timeout_s = orphan_timeout_s(request["spec"], request["settings"])
        self._clock = clock or (_boottime if is_renewed_only(attempt.job.path, request) else time.monotonic)
        self._look_at = self._since = self._clock()
        self._asked_at: float | None = None

    def reached(self) -> Cause | None:
        """Return the cause to stop the job if the time is over."""
        now = self._clock()
        if self._timeout_s is None or now < self._look_at:
            return None
        self._look_at = now + min(_LONGEST_PAUSE_S, self._timeout_s / _LOOKS)
        try:
            is_renewed = is_renewed_only(self._job, self._request)
            at = renewed_at(self._job, self._request) if is_renewed else asked_at(self._job)
        except OSError:
            self._since = now
            return None
        if at != self._asked_at:
            self._asked_at, self._since = at, now
        return _cause(self._timeout_s, at) if now - self._since >= self._timeout_s else None


def end_if_orphaned(attempt: Attempt, request: AttemptRequest) -> bool:
    """
    End an attempt that is about to start, if nobody asked about it for that long while it waited; return whether it
    was ended.
    """
    timeout_s = orphan_timeout_s(request["spec"], request["settings"])
    if timeout_s is None:
        return False
    if is_renewed_only(attempt.job.path, request):
        unasked = unrenewed_s(attempt.job.path, attempt.path, request)
    else:
        unasked = unasked_s(attempt.job.path, attempt.path)
    if unasked is None or unasked < timeout_s:
        return False
    state, reason, message = _cause(timeout_s, time.time() - unasked)
    message = f"{message}; it was not started"
    claim = claim_by("cancel")
    facts = orphan_mark(attempt, request)
    claim["end"] = {"state": state, "reason": reason, "message": message}
    if "placement" in facts:
        claim["end"]["placement"] = facts["placement"]
    facts["submitted_at"] = request["requested_at"]
    if attempt.claim(claim):
        attempt.finish(state, reason, message, **facts)
    return True


def orphan_mark(attempt: Attempt, request: AttemptRequest) -> EndFacts:
    """
    Return what the record of such an end says besides: for a job that only renewals keep, that it is no end of the job.

    Whoever has renewed it counts on it being gone from here, and launches it anew.
    """
    return {"placement": EXPIRED} if is_renewed_only(attempt.job.path, request) else {}


def _cause(timeout_s: float, at: float | None) -> Cause:
    last = "" if at is None else f", the last time at {datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    message = f"nobody has asked about it for {duration(timeout_s)}, its orphan_timeout{last}"
    return Cause(protocol.CANCELLED, protocol.ORPHANED, message)
