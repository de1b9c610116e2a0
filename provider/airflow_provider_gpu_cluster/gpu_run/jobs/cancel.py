"""Cancel jobs: waiting jobs never start, running ones are ended, and ended ones stay as they are."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..linux import regular_files
from ..reply import Reply
from ..store import records
from ..store.cancelled_requests import note_cancelled
from ..store.claims import claim_by
from ..store.directories import Attempt, JobDirectory, Root
from .counts import count
from .status import status_or_unknown, statuses

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.cancellation import CancelRecord
    from ..protocol.requests import CancelRequest
    from ..protocol.status import Status

_LOOK_S = 0.05
# What is met where a job has spoilt its records, or is deleting them.
_SPOILT = (
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


def answer(root: Root, engine: Engine, request: CancelRequest) -> Reply:
    """Carry out the verb ``cancel``."""
    keys = request.get("request_keys")
    found = cancel(root, engine, request["job_ids"], request["by"], request["wait_s"], keys)
    return Reply({"jobs": found, "counted": count(root, found)})


def cancel(
    root: Root,
    engine: Engine,
    job_ids: list[str],
    by: str,
    wait_s: float,
    request_keys: dict[str, str] | None = None,
) -> list[Status]:
    """
    Cancel jobs; a second time changes nothing.

    :param by: who asks, for the record.
    :param wait_s: how long to wait until they are gone.
    :param request_keys: by job, the key of a request to launch it that may still be on its way, and launches nothing
        any more.
    :return: their statuses afterwards.
    :raises Refused: one of them is no job id; none is cancelled.
    """
    jobs = [root.job(job_id) for job_id in job_ids]
    failure: Exception | None = None
    for job in jobs:
        try:
            if request_keys and job.job_id in request_keys:
                _stop_launch(job, root, by, request_keys[job.job_id])
        except (OSError, Refused) as error:
            # What runs is cancelled all the same.
            failure = error
        try:
            _cancel_job(job, root, engine, by)
        except _SPOILT:
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


def _stop_launch(job: JobDirectory, root: Root, by: str, request_key: str) -> None:
    """Keep a request from launching the job, unless it has done so by the end of this call."""
    asked: CancelRecord = {"by": by, "at": records.now()}
    note_cancelled(root, job.job_id, request_key, asked)
    # A request that looked for the note before is making its attempt now.
    with contextlib.suppress(FileNotFoundError), job.lock():
        pass


def _cancel_job(job: JobDirectory, root: Root, engine: Engine, by: str) -> None:
    if job.attempts():
        _cancel_latest(job, root, engine, by)
    elif job.use():
        _cancel_elements(job, root, engine, by)


def _cancel_elements(job: JobDirectory, root: Root, engine: Engine, by: str) -> None:
    """Cancel an array, also one that is about to be launched."""
    from ..store import arrays

    with job.lock():
        arrays.note_cancellation(job, by)
        for element in arrays.all_elements_of(job):
            _cancel_latest(root.job(element), root, engine, by)


def _cancel_latest(job: JobDirectory, root: Root, engine: Engine, by: str) -> None:
    # A look at the job may find that it has ended, and make its next attempt, which is the one to cancel then.
    if not job.attempts() or status_or_unknown(root, engine, job.job_id)["state"] in protocol.FINAL_STATES:
        return
    latest = job.attempts()[-1]
    _cancel(latest, engine, by)
    # Who makes the next attempt looks for a cancel after that. So the next attempt is here by now, or never runs.
    while True:
        attempt = job.attempts()[-1]
        if attempt.number <= latest.number or attempt.log_number != latest.log_number:
            return
        latest = attempt
        _cancel(latest, engine, by)


def _cancel(attempt: Attempt, engine: Engine, by: str) -> None:
    asked: CancelRecord = {"by": by, "at": records.now()}
    if _note(attempt, asked):
        attempt.event("cancel_requested", by=by)
    if attempt.claim(claim_by("cancel")):
        # It can no longer be started.
        request = attempt.request()
        message = f"cancelled by {by} before it started"
        attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, message, submitted_at=request["requested_at"])
        engine.leave(attempt)
        return
    claim = attempt.claimed()
    if claim is not None:
        engine.stop(attempt, claim)


def _note(attempt: Attempt, asked: CancelRecord) -> bool:
    """Write down who has asked for a cancel, on a full disk in a part of the space that was set aside for the end."""
    try:
        return records.create_json(attempt.at("cancel.json"), asked)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    attempt.use_reserve()
    return records.create_json(attempt.at("cancel.json"), asked)
