"""
The verb ``place``: tell this cluster which of several is to have a job, and hear whether it has it already.

The record of the placement decides. It is written before anything is done about an attempt, so whoever is about to
launch or to start one finds it; and while an attempt waits or runs that nobody wants to end, it is left as it was.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Iterator, NamedTuple

from .. import protocol
from ..errors import Refused
from ..protocol.placement import (
    CLAIM,
    CLAIMED,
    END,
    ENDED,
    EXPIRED,
    FENCE,
    FENCED,
    LAUNCHED,
    OUTRANKED,
    TAKEN,
    WITHDRAW,
    WITHDRAWN,
    order,
)
from ..reply import Reply
from ..store.directories import Attempt, JobDirectory, Root
from ..store.placed_launches import misplaced, moved_words
from ..store.placements import (
    WITHDRAWAL_S,
    forget_placement,
    forget_promise,
    is_count,
    is_outranked,
    is_text,
    new_note,
    note_placement,
    placement_note,
    placing,
    promise,
    promises,
    promising,
    sound_placement,
)
from ..store.renewals import note_renewed
from ..store.start_dates import is_past
from .cancel import SPOILT, Canceller, cancel_latest, keep_from_starting
from .placed_jobs import elements, placed
from .status import status_or_unknown

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.notes import PlacementNote
    from ..protocol.placement import Placement, PlaceReply
    from ..protocol.requests import PlaceCall
    from ..protocol.spec import Spec

# How long one who wants an end waits for it.
_END_WAIT_S = 5.0
# How long an attempt that has just been started may take to find that it was taken back.
_FOUND_OUT_S = 3.0
_LOOK_S = 0.05


def answer(root: Root, engine: Engine, request: PlaceCall) -> Reply:
    """Carry out the verb ``place``."""
    work = {CLAIM: _claim, FENCE: _fence, WITHDRAW: _withdraw, END: _end}.get(request["kind"])
    if work is None:
        raise Refused(protocol.BAD_REQUEST, "a cluster cannot be told to {!r} a job".format(request["kind"]))
    job = root.job(request["job_id"])
    word = _Word(root, engine, job, sound_placement(request["placement"]), request)
    _check(request)
    outcome = work(word)
    reply: PlaceReply = {"outcome": outcome, "now": time.time()}
    known = placed(root, engine, job.job_id)
    if "placement" in known:
        reply["placement"] = known["placement"]
    if "chosen" in known:
        reply["chosen"] = known["chosen"]
    if "status" in known:
        reply["status"] = known["status"]
    return Reply(reply)


def _check(request: PlaceCall) -> None:
    """
    Refuse what makes no sense besides the placement.

    :raises Refused: it does not.
    """
    spec, by = request.get("spec"), request.get("by", "")
    if not is_text(by):
        raise Refused(protocol.BAD_REQUEST, f"this does not say who asks: {repr(by)[:200]}")
    if spec is not None and not (
        isinstance(spec, dict) and all(map(is_count, (spec.get("gpus"), spec.get("nodes", 1))))
    ):
        raise Refused(protocol.BAD_REQUEST, f"this does not say how many GPUs the job needs: {repr(spec)[:200]}")


class _Word(NamedTuple):
    """What this cluster is told of a job."""

    root: Root
    engine: Engine
    job: JobDirectory
    placement: Placement
    request: PlaceCall

    def note(self) -> PlacementNote | None:
        """Return what it was told before."""
        return placement_note(self.root, self.job.job_id)

    def keep(self, kind: str) -> None:
        """
        Keep what it is told, unless that is known.

        :raises Refused: it cannot be kept.
        """
        note = self.note()
        if note is not None and "withdrawal" not in note and note["kind"] == kind and self._is_known(note):
            return
        wanted = new_note(self.job.job_id, self.placement, kind, note)
        if kind in (WITHDRAW, END):
            self.write(wanted)
        else:
            note_placement(self.root, wanted)

    def write(self, note: PlacementNote) -> None:
        """Write a record, on a full disk in a part of the space that was set aside for the ends of attempts."""
        try:
            note_placement(self.root, note)
        except Refused as refusal:
            if refusal.code != protocol.NO_SPACE:
                raise
            for attempt in latest_attempts(self.root, self.job):
                attempt.use_reserve()
            note_placement(self.root, note)

    def _is_known(self, note: PlacementNote) -> bool:
        return order(note["placement"]) == order(self.placement)

    def is_outranked(self, kind: str) -> bool:
        """Return whether a higher placement is known, or this one is not for here any more."""
        note = self.note()
        if note is None:
            return False
        if kind != CLAIM:
            return order(note["placement"]) > order(self.placement)
        is_over = self._is_known(note) and "start_by" in note and is_past(note["start_by"])
        return is_outranked(note, self.placement) or is_over

    def restore(self, note: PlacementNote | None) -> None:
        """Keep again what was known before."""
        if note is not None:
            note_placement(self.root, note)
        else:
            forget_placement(self.root, self.job.job_id)

    def canceller(self) -> Canceller:
        moved = moved_words(self.placement)
        return Canceller(self.request.get("by") or moved, self.request.get("caller", {}), moved)

    def note_move(self, attempt: Attempt) -> None:
        """Note in the audit trail that an attempt was taken back."""
        self.canceller().note(attempt.job, attempt, attempt.number)


# -- the words -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _deciding(word: _Word) -> Iterator[None]:
    """Keep others from placing the job meanwhile."""
    with placing(word.root, word.job.job_id):
        note = word.note()
        if note is not None and "withdrawal" in note:
            # Who was about to take it back was killed. Those that wait for the decision go on by themselves.
            del note["withdrawal"]
            with contextlib.suppress(Refused):
                note_placement(word.root, note)
        yield


def _claim(word: _Word) -> str:
    spec = word.request.get("spec")
    with _deciding(word):
        if word.is_outranked(CLAIM):
            return OUTRANKED
        before = word.note()
        standing = _standing(word)
        if standing.is_alive:
            is_own = before is not None and order(before["placement"]) == order(word.placement)
            if not is_own:
                word.keep(CLAIM)
                note_renewed(word.root, word.job.job_id)
            return CLAIMED if is_own else LAUNCHED
        if spec is not None and not _promised(word, spec):
            return TAKEN
        try:
            word.keep(CLAIM)
        except (OSError, Refused):
            forget_promise(word.root, word.job.job_id)
            raise
        if _has_come_meanwhile(word):
            forget_promise(word.root, word.job.job_id)
            word.restore(before)
            return LAUNCHED
    note_renewed(word.root, word.job.job_id)
    return CLAIMED


def _fence(word: _Word) -> str:
    with _deciding(word):
        if word.is_outranked(FENCE):
            return OUTRANKED
        standing = _standing(word)
        if standing.is_alive:
            return LAUNCHED
        before = word.note()
        if before is None or before["kind"] == CLAIM or order(before["placement"]) < order(word.placement):
            word.keep(FENCE)
        if _has_come_meanwhile(word):
            word.restore(before)
            return LAUNCHED
    forget_promise(word.root, word.job.job_id)
    return _gone(standing)


def _withdraw(word: _Word) -> str:
    """Take back a job that waits: all of it, or nothing."""
    with _deciding(word):
        if word.is_outranked(WITHDRAW):
            return OUTRANKED
        before = word.note()
        standing = _standing(word)
        is_known = _is_known(before, word.placement)
        if standing.runs or (standing.has_succeeded and standing.is_alive and not is_known):
            return LAUNCHED
        waiting = standing.waiting
        if waiting and not is_known and not _none_begins(word, before, waiting):
            return LAUNCHED
        word.keep(WITHDRAW)
        if _has_come_meanwhile(word, besides=waiting):
            word.restore(before)
            return LAUNCHED
        taken = [attempt for attempt in waiting if _taken_back(word, attempt)]
        if len(taken) < len(waiting):
            # Only an attempt of an older version can have begun, which does not look for the record.
            word.restore(before)
            return LAUNCHED
    forget_promise(word.root, word.job.job_id)
    for attempt in taken:
        try:
            word.engine.leave(attempt)
        finally:
            word.note_move(attempt)
    return _gone(standing)


def _is_known(note: PlacementNote | None, placement: Placement) -> bool:
    """Return whether this cluster was told before that a placement is not for here."""
    return note is not None and note["kind"] != CLAIM and order(note["placement"]) == order(placement)


def _none_begins(word: _Word, before: PlacementNote | None, waiting: list[Attempt]) -> bool:
    """Keep attempts from beginning until the record decides; return False when one has begun, and let them go on."""
    began = time.monotonic()
    if before is None:
        # They are of no placement, and look for none.
        return True
    word.write({**before, "withdrawal": word.placement})
    is_late = False
    if not any(_is_claimed(attempt) for attempt in waiting):
        is_late = time.monotonic() - began > WITHDRAWAL_S / 2
        if not is_late:
            return True
    word.restore(before)
    if is_late:
        message = f"{word.root.path} answers too slowly to take job {word.job.job_id} back now"
        raise Refused(protocol.PASSING_FAULT, message)
    return False


def _is_claimed(attempt: Attempt) -> bool:
    # A folder that is opened is asked for at the server of a network file system.
    return "claim.json" in os.listdir(attempt.path)


def _taken_back(word: _Word, attempt: Attempt) -> bool:
    """Keep an attempt from ever starting; return False when it runs."""
    message = f"{moved_words(word.placement)} before it started"
    if keep_from_starting(attempt, message, WITHDRAWN):
        return True
    # Its supervisor has begun since, and finds that it must not start it.
    deadline = time.monotonic() + _FOUND_OUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError):
            if attempt.ended() is not None:
                return True
        time.sleep(_LOOK_S)
    return False


def _end(word: _Word) -> str:
    with _deciding(word):
        if word.is_outranked(END):
            return OUTRANKED
        word.keep(END)
    forget_promise(word.root, word.job.job_id)
    # A request that looked for the record before is making its attempt now.
    with contextlib.suppress(FileNotFoundError), word.job.lock():
        pass
    who = word.canceller()
    failure: Exception | None = None
    for job in _jobs(word.root, word.job):
        try:
            cancel_latest(job, word.root, word.engine, who)
        except SPOILT:
            continue
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure
    deadline = time.monotonic() + _END_WAIT_S
    while True:
        standing = _standing(word)
        if not standing.is_alive:
            return _gone(standing)
        if time.monotonic() > deadline:
            return LAUNCHED
        time.sleep(_LOOK_S)


# -- what is here ----------------------------------------------------------------------------------------------------


class _Standing(NamedTuple):
    """
    What waits or runs here of a job.

    :param is_here: whether there is an attempt at all.
    :param runs: whether one runs, or may run.
    :param has_succeeded: whether it, or an element of it, has ended well.
    """

    is_here: bool
    runs: bool
    waiting: list[Attempt]
    has_succeeded: bool

    @property
    def is_alive(self) -> bool:
        return self.runs or bool(self.waiting)


def _standing(word: _Word) -> _Standing:
    """
    Return that, and end what waits and may not start any more.

    :raises Refused: it cannot be known now whether something runs whose directory is gone.
    """
    jobs = _jobs(word.root, word.job)
    if not jobs:
        return _Standing(False, _runs_without_records(word), [], False)
    runs = has_succeeded = False
    waiting = []
    for job in jobs:
        state = status_or_unknown(word.root, word.engine, job.job_id)["state"]
        latest = job.attempts()[-1:]
        has_succeeded = has_succeeded or state == protocol.SUCCEEDED
        if state == protocol.QUEUED and latest and not _is_claimed(latest[0]):
            if not end_if_expired(latest[0], word.engine):
                waiting += latest
        elif state not in protocol.FINAL_STATES:
            runs = True
    return _Standing(True, runs, waiting, has_succeeded)


def end_if_expired(attempt: Attempt, engine: Engine) -> bool:
    """End an attempt that waits, if its last moment to start is over; return whether it has ended so."""
    why = misplaced(attempt.job, attempt.request())
    if why is None or why.mark != EXPIRED:
        return False
    if not keep_from_starting(attempt, f"{why.message}; it was not started", why.mark):
        return False
    engine.leave(attempt)
    return True


def _runs_without_records(word: _Word) -> bool:
    """Return whether a job runs that has deleted its own directory."""
    note = word.note()
    try:
        return word.engine.still_runs(word.job.job_id)
    except Refused:
        if note is not None and note["kind"] == CLAIM:
            raise
        # Nothing was ever launched here, as far as known.
        return False


def _jobs(root: Root, job: JobDirectory) -> list[JobDirectory]:
    """Return the job, or the elements of an array, as far as they have attempts."""
    jobs = [job] if job.attempts() else elements(root, job)
    return [one for one in jobs if one.attempts()]


def latest_attempts(root: Root, job: JobDirectory) -> list[Attempt]:
    """Return the latest attempt of a job, or of each element of an array."""
    return [one.attempts()[-1] for one in _jobs(root, job)]


def _has_come_meanwhile(word: _Word, besides: list[Attempt] | None = None) -> bool:
    """
    Return whether a request without a placement has launched the job while the record was written.

    One that comes later finds the record; and one with a placement waits for this.
    """
    with contextlib.suppress(FileNotFoundError), word.job.lock():
        pass
    known = {attempt.path for attempt in besides or ()}
    return any(
        attempt.path not in known and attempt.ended() is None for attempt in latest_attempts(word.root, word.job)
    )


def _gone(standing: _Standing) -> str:
    return ENDED if standing.is_here else FENCED


# -- promises --------------------------------------------------------------------------------------------------------


def _promised(word: _Word, spec: Spec) -> bool:
    """Keep the GPUs of a claim free for it for a moment; return False if they are not free and that was asked for."""
    with promising(word.root):
        if word.request.get("if_free") and not _is_free(word, spec):
            return False
        promise(word.root, word.job.job_id, spec)
    return True


def _is_free(word: _Word, spec: Spec) -> bool:
    # Imported late: only a claim of what is free needs it.
    from .appraisal import is_free_now

    others = [one for one in promises(word.root) if one.job_id != word.job.job_id]
    return is_free_now(word.root, word.engine, spec, promised=others)
