"""The status of an attempt, from its records and, where they do not say it, from its engine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

from .. import protocol
from ..errors import Refused
from ..linux import processes
from ..reply import Reply
from ..store.claims import run_facts
from ..store.directories import Attempt, Root
from ..supervise import diagnosis

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.records import Claim
    from ..protocol.requests import StatusRequest
    from ..protocol.status import Observed, Progress, Started, Status

_PROGRESS_BYTES = 4096


def answer(root: Root, engine: Engine, request: StatusRequest) -> Reply:
    """Carry out the verb ``status``."""
    return Reply({"jobs": statuses(root, engine, request["job_ids"], request["tail_bytes"])})


def statuses(root: Root, engine: Engine, job_ids: list[str], tail_bytes: int) -> list[Status]:
    """Return the status of each job; a job whose status cannot be found does not affect the others."""
    engine.nudge()
    return [status_or_unknown(root, engine, job_id, tail_bytes) for job_id in job_ids]


def status_or_unknown(root: Root, engine: Engine, job_id: str, tail_bytes: int = 0) -> Status:
    """Return the status of a job; UNKNOWN, and the reason, when it cannot be found."""
    try:
        return job_status(root, engine, job_id, tail_bytes)
    except Refused as refusal:
        return _unknown(job_id, refusal.message)
    except Exception as error:  # jobs can write to their records, so these may contain anything
        return _unknown(job_id, f"its records cannot be read: {error!r}")


def job_status(root: Root, engine: Engine, job_id: str, tail_bytes: int = 0) -> Status:
    """Return the status of a job, with the last lines of its output if it has ended or has printed any."""
    job = root.job(job_id)
    attempts = job.attempts()
    if not attempts:
        return _without_attempt(root, engine, job_id, tail_bytes)
    status = status_of(attempts[-1], engine)
    if tail_bytes:
        status["log_tail"] = tail_of(root, status, tail_bytes)
    return status


def tail_of(root: Root, status: Status, size: int) -> str:
    """
    Return the last lines of a job's output, without its secrets.

    :param size: how many bytes at most.
    """
    logs = root.job(status["job_id"]).at("logs")
    masks = status.get("masks")
    if masks is None:
        return diagnosis.tail(logs, size)
    from ..protocol.masks import hidden, longest

    # A secret may begin before the text that is shown.
    text = diagnosis.tail(logs, size + 4 * longest(masks))
    start = max(0, len(text) - size)
    if start:
        start = text.find("\n", start - 1) + 1 or start
    return hidden(text, masks, start)


def _without_attempt(root: Root, engine: Engine, job_id: str, tail_bytes: int) -> Status:
    job = root.job(job_id)
    if job.exists():
        from ..store import arrays

        elements = arrays.elements_of(job)
        if elements:
            return _array_status(root, engine, job_id, elements, tail_bytes)
        return _unknown(job_id, "it is staged, and was not launched")
    if engine.still_runs(job_id):
        return _unknown(job_id, f"it runs, but its directory {job.path} is gone")
    gone = "there is no {} on {} and nothing runs for it: it was deleted, or the connection has another root_dir"
    return {
        **_unknown(job_id, gone.format(job.path, processes.hostname())),
        "state": protocol.LOST,
        "reason": protocol.REASON_LOST,
    }


def _array_status(root: Root, engine: Engine, array_id: str, elements: list[str], tail_bytes: int) -> Status:
    from ..protocol import array_status

    found = [status_or_unknown(root, engine, job_id) for job_id in elements]
    if tail_bytes:
        for index in array_status.telling(found):
            found[index]["log_tail"] = tail_of(root, found[index], tail_bytes // array_status.MOST_TAILS)
    return array_status.summary(array_id, found)


def _unknown(job_id: str, message: str) -> Status:
    return {"job_id": job_id, "state": protocol.UNKNOWN, "message": message}


def status_of(attempt: Attempt, engine: Engine) -> Status:
    """Return the status of an attempt, without its secrets. If it is gone without a record, its engine settles it."""
    status = _status_of(attempt, engine)
    try:
        masks = attempt.request().get("masks")
    except Refused:
        masks = None
    if masks is None:
        return status
    from ..protocol.masks import hidden_in

    shown: Status = hidden_in(status, masks)
    shown["masks"] = masks
    return shown


def _status_of(attempt: Attempt, engine: Engine) -> Status:
    ended = attempt.ended()
    if ended is None:
        claim = attempt.claimed()
        standing = engine.standing(attempt, claim)
        if standing is not None:
            status: Status = {**_base(attempt), "job_id": attempt.job.job_id, **standing}
            if claim and standing["state"] == protocol.RUNNING:
                return {**status, **_running(attempt, claim), **standing}
            return status
        ended = attempt.ended()
        assert ended is not None
    # Everything in an exit record belongs in a status.
    return {**_base(attempt), **cast("Status", ended), "job_id": attempt.job.job_id}


def _base(attempt: Attempt) -> Observed:
    status: Observed = {"attempt": attempt.number, "log_bytes": _log_bytes(attempt)}
    progress = _progress(attempt)
    if progress is not None:
        status["progress"] = progress
    return status


def _running(attempt: Attempt, claim: Claim) -> Started:
    facts = run_facts(claim)
    return {
        "submitted_at": attempt.request()["requested_at"],
        "started_at": facts["started_at"],
        "gpus": facts["gpus"],
        "host": facts["host"],
        "pid": facts["pid"],
    }


def _log_bytes(attempt: Attempt) -> int:
    try:
        return os.path.getsize(attempt.job.at("logs", "training.log"))
    except OSError:
        return 0


def _progress(attempt: Attempt) -> Progress | None:
    """Return the last whole line of the progress file that is a JSON object."""
    try:
        with open(attempt.job.at("logs", "progress.jsonl"), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _PROGRESS_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None
