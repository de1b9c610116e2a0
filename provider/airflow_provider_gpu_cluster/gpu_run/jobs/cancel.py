"""Cancel jobs: waiting jobs never start, running ones are ended, and ended ones stay as they are."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING, NamedTuple

from .. import protocol
from ..engines.unstarted import end_unstarted
from ..errors import Refused
from ..linux import regular_files
from ..protocol.acts import CANCEL, MOVE
from ..protocol.cancellation import words_of
from ..protocol.placement import FENCED_OFF, WITHDRAWN
from ..reply import Reply
from ..store import records
from ..store.acts import name_of, note_act
from ..store.cancelled_requests import note_cancelled
from ..store.directories import Attempt, JobDirectory, Root
from ..store.placements import forget_promise
from .counts import count
from .status import status_or_unknown, statuses

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.cancellation import CancelRecord
    from ..protocol.records import EndFacts
    from ..protocol.requests import Caller, CancelCall
    from ..protocol.status import Status

_LOOK_S = 0.05
# What is met where a job has spoilt its records, or is deleting them.
SPOILT = (
    Refused,
    ValueError,
    KeyError,
    TypeError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    regular_files.NotRegular,
)


def answer(root: Root, engine: Engine, request: CancelCall) -> Reply:
    """Carry out the verb ``cancel``."""
    keys, caller = request.get("request_keys"), request.get("caller", {})
    found = cancel(root, engine, request["job_ids"], request["by"], request["wait_s"], keys, caller)
    return Reply({"jobs": found, "counted": count(root, found)})


class Canceller(NamedTuple):
    """
    Who cancels, and what for.

    :param by: in words, for the job's record.
    :param caller: for the audit trail.
    :param moved: in words, where the job is instead; empty if it is to end altogether.
    """

    by: str
    caller: Caller
    moved: str = ""

    def asked(self) -> CancelRecord:
        """Return the record of this wish, made now."""
        asked: CancelRecord = {"by": self.by, "at": records.now()}
        if self.moved:
            asked["message"], asked["placement"] = self.moved, FENCED_OFF
        return asked

    def note(self, job: JobDirectory, attempt: Attempt | None, made: int, details: str = "") -> None:
        """
        Note a cancellation in the audit trail, once however often it is asked for.

        :param made: how many attempts there are; a cancellation after the next one is another.
        """
        host = self.caller.get("airflow_host", "")
        note_act(
            job.path,
            MOVE if self.moved else CANCEL,
            caller=self.caller,
            through=self.by,
            attempt=None if attempt is None else attempt.number,
            key=f"{made} {name_of(self.caller)} {host} {self.by} {self.moved}".rstrip(),
            details=details or self.moved,
        )


def cancel(
    root: Root,
    engine: Engine,
    job_ids: list[str],
    by: str,
    wait_s: float,
    request_keys: dict[str, str] | None = None,
    caller: Caller | None = None,
) -> list[Status]:
    """
    Cancel jobs; a second time changes nothing.

    :param by: who asks, for the record.
    :param wait_s: how long to wait until they are gone.
    :param request_keys: by job, the key of a request to launch it that may still be on its way, and launches nothing
        any more.
    :param caller: who makes the request, for the audit trail.
    :return: their statuses afterwards.
    :raises Refused: one of them is no job id; none is cancelled.
    """
    jobs = [root.job(job_id) for job_id in job_ids]
    who = Canceller(by, caller or {})
    failure: Exception | None = None
    for job in jobs:
        try:
            if request_keys and job.job_id in request_keys:
                _stop_launch(job, root, who, request_keys[job.job_id])
        except (OSError, Refused) as error:
            # What runs is cancelled all the same.
            failure = error
        try:
            _cancel_job(job, root, engine, who)
        except SPOILT:
            # Its status says so, and the others are cancelled.
            continue
        except OSError as error:
            failure = error
    if failure is not None:
        # What was cancelled stays so when it is asked for again.
        raise failure
    deadline = time.monotonic() + wait_s
    while True:
        found = statuses(root, engine, job_ids, 0)
        running = [status for status in found if status["state"] in (protocol.QUEUED, protocol.RUNNING)]
        if not running or time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_S)


def _stop_launch(job: JobDirectory, root: Root, who: Canceller, request_key: str) -> None:
    """Keep a request from launching the job, unless it has done so by the end of this call."""
    asked: CancelRecord = {"by": who.by, "at": records.now()}
    is_first = note_cancelled(root, job.job_id, request_key, asked)
    forget_promise(root, job.job_id)
    # A request that looked for the note before is making its attempt now.
    with contextlib.suppress(FileNotFoundError), job.lock():
        pass
    if is_first and not job.attempts():
        who.note(job, None, 0, "before it was launched")


def _cancel_job(job: JobDirectory, root: Root, engine: Engine, who: Canceller) -> None:
    if job.attempts():
        cancel_latest(job, root, engine, who)
    elif job.use():
        _cancel_elements(job, root, engine, who)


def _cancel_elements(job: JobDirectory, root: Root, engine: Engine, who: Canceller) -> None:
    """Cancel an array, also one that is about to be launched."""
    from ..store import arrays

    with job.lock():
        arrays.note_cancellation(job, who.by)
        elements = [root.job(element) for element in arrays.all_elements_of(job)]
        for element in elements:
            cancel_latest(element, root, engine, who)
    if elements:
        who.note(job, None, sum(len(element.attempts()) for element in elements), f"{len(elements)} elements")


def cancel_latest(job: JobDirectory, root: Root, engine: Engine, who: Canceller) -> None:
    """Cancel the latest attempt of a job, and those that follow it by themselves."""
    # A look at the job may find that it has ended, and make its next attempt, which is the one to cancel then.
    if not job.attempts():
        return
    if status_or_unknown(root, engine, job.job_id)["state"] in protocol.FINAL_STATES:
        latest = job.attempts()[-1]
        if latest.cancellation() is not None:
            # One that has come too late may tell more of who has wanted it.
            who.note(job, latest, latest.number, "it was cancelled already")
        return
    latest = job.attempts()[-1]
    _cancel(latest, engine, who)
    # Who makes the next attempt looks for a cancel after that. So the next attempt is here by now, or never runs.
    while True:
        attempt = job.attempts()[-1]
        if attempt.number <= latest.number or attempt.log_number != latest.log_number:
            return
        latest = attempt
        _cancel(latest, engine, who)


def _cancel(attempt: Attempt, engine: Engine, who: Canceller) -> None:
    try:
        _ask_to_end(attempt, engine, who)
    finally:
        who.note(attempt.job, attempt, attempt.number)


def _ask_to_end(attempt: Attempt, engine: Engine, who: Canceller) -> None:
    asked = who.asked()
    if _note(attempt, asked):
        attempt.event("cancel_requested", by=who.by)
    if keep_from_starting(attempt, f"{words_of(asked)} before it started", WITHDRAWN if who.moved else ""):
        engine.leave(attempt)
        return
    claim = attempt.claimed()
    if claim is not None:
        engine.stop(attempt, claim)


def keep_from_starting(attempt: Attempt, message: str, mark: str = "") -> bool:
    """
    End an attempt that waits, so that it can no longer be started; return False when it has begun.

    :param mark: why it does not run on this cluster, if that is why; see :mod:`.protocol.placement`.
    """
    facts: EndFacts = {"placement": mark} if mark else {}
    return end_unstarted(attempt, "cancel", protocol.CANCELLED, protocol.REASON_CANCELLED, message, **facts)


def _note(attempt: Attempt, asked: CancelRecord) -> bool:
    """Write down who has asked for a cancel, on a full disk in a part of the space that was set aside for the end."""
    try:
        return records.create_json(attempt.at("cancel.json"), asked)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    attempt.use_reserve()
    return records.create_json(attempt.at("cancel.json"), asked)
