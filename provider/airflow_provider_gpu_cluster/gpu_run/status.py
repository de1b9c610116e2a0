"""How an attempt stands, from its records and from whether its supervisor lives."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from . import diagnosis, processes, protocol, records
from .errors import Refused
from .store import Attempt, Root

if TYPE_CHECKING:
    from .engines.host import HostEngine

_KILL_PATIENCE_S = 5.0
_PROGRESS_BYTES = 4096
_SERVED_WITHIN_S = 20.0


def statuses(root: Root, engine: HostEngine, job_ids: list[str], tail_bytes: int) -> list[dict[str, Any]]:
    """Return how each job stands; a job that cannot be found out about does not keep the others from theirs."""
    engine.nudge()
    return [status_or_unknown(root, engine, job_id, tail_bytes) for job_id in job_ids]


def status_or_unknown(root: Root, engine: HostEngine, job_id: str, tail_bytes: int = 0) -> dict[str, Any]:
    """Return how a job stands; UNKNOWN, and why, when that cannot be found out."""
    try:
        return job_status(root, engine, job_id, tail_bytes)
    except Refused as refusal:
        return _unknown(job_id, refusal.message)
    except Exception as error:  # jobs can write to their records, and so there may be anything in them
        return _unknown(job_id, f"its records cannot be read: {error!r}")


def job_status(root: Root, engine: HostEngine, job_id: str, tail_bytes: int = 0) -> dict[str, Any]:
    """Return how a job stands, with the last lines of its output if it has ended or has printed any."""
    job = root.job(job_id)
    attempts = job.attempts()
    if not attempts:
        return _without_attempt(root, engine, job_id)
    status = status_of(attempts[-1], engine)
    if tail_bytes:
        status["log_tail"] = diagnosis.tail(job.at("logs"), tail_bytes)
    return status


def _without_attempt(root: Root, engine: HostEngine, job_id: str) -> dict[str, Any]:
    job = root.job(job_id)
    if job.exists():
        return _unknown(job_id, "it is staged, and was not launched")
    if engine.holds_lease(job_id):
        return _unknown(job_id, f"it runs, but its directory {job.path} is gone")
    gone = "there is no {} on {} and nothing runs for it: it was deleted, or the connection's root_dir is another"
    return dict(
        _unknown(job_id, gone.format(job.path, processes.hostname())), state=protocol.LOST, reason=protocol.REASON_LOST
    )


def _unknown(job_id: str, message: str) -> dict[str, Any]:
    return {"job_id": job_id, "state": protocol.UNKNOWN, "message": message}


def status_of(attempt: Attempt, engine: HostEngine) -> dict[str, Any]:
    """Return how an attempt stands. One whose supervisor is gone without a record is settled as LOST."""
    ended = attempt.ended()
    if ended is None:
        claim = attempt.claimed()
        if claim is None:
            return _queued(attempt, engine)
        alive = processes.is_alive(claim)
        if alive is None:
            return dict(
                _base(attempt),
                state=protocol.UNKNOWN,
                message="it runs on {}, this is {}; point the connection there".format(
                    claim["host"], processes.hostname()
                ),
            )
        if alive:
            return _running(attempt, claim) if claim["by"] == "supervisor" else _queued(attempt, engine)
        # It may have ended between the two looks.
        ended = attempt.ended() or _settle_lost(attempt, claim)
    return dict(_base(attempt), **{name: value for name, value in ended.items() if name != "job_id"})


def _base(attempt: Attempt) -> dict[str, Any]:
    status = {"job_id": attempt.job.job_id, "attempt": attempt.number, "log_bytes": _log_bytes(attempt)}
    progress = _progress(attempt)
    if progress is not None:
        status["progress"] = progress
    return status


def _queued(attempt: Attempt, engine: HostEngine) -> dict[str, Any]:
    request = attempt.request()
    status = {
        "job_id": attempt.job.job_id,
        "attempt": attempt.number,
        "state": protocol.QUEUED,
        "submitted_at": request["requested_at"],
        "host": request["host"],
    }
    if request["host"] != processes.hostname():
        return dict(
            status,
            state=protocol.UNKNOWN,
            message="it waits on {}, this is {}".format(request["host"], processes.hostname()),
        )
    if not request.get("waiter") and not engine.in_line(attempt) and attempt.claimed() is None:
        # Whoever made the attempt died before it was in line.
        engine.launch(attempt, request)
    wait = engine.waits.get(attempt.job.job_id)
    if wait is None:
        is_new = records.seconds_between(request["requested_at"], records.now()) < _SERVED_WITHIN_S
        trouble = "" if is_new else engine.trouble()
        return dict(status, message=trouble or "it was just put in line")
    return dict(status, queue_place=wait.place or None, message=wait.why)


def _running(attempt: Attempt, claim: dict[str, Any]) -> dict[str, Any]:
    return dict(
        _base(attempt),
        state=protocol.RUNNING,
        submitted_at=attempt.request()["requested_at"],
        started_at=claim["at"],
        gpus=[gpu["index"] for gpu in claim["gpus"]],
        host=claim["host"],
        pid=claim["pid"],
    )


def _settle_lost(attempt: Attempt, claim: dict[str, Any]) -> dict[str, Any]:
    """
    Record that whoever had claimed the attempt vanished before its end.

    The guard of a supervisor has killed the job; should the guard be gone too, this does it.
    """
    if claim["by"] == "cancel":
        attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, "cancelled before it started")
    if claim["by"] == "supervisor":
        _settle_supervisor(attempt, claim)
    else:
        attempt.finish(protocol.LOST, protocol.REASON_LOST, "the process that waited for it was killed")
    ended = attempt.ended()
    assert ended is not None
    return ended


def _settle_supervisor(attempt: Attempt, claim: dict[str, Any]) -> None:
    if claim["boot"] != processes.boot_id():
        message = "the host was rebooted"
    else:
        message = f"its supervisor (process {claim['pid']}) was killed"
        processes.kill_with_environment(claim["token"], _KILL_PATIENCE_S)
    attempt.finish(
        protocol.LOST,
        protocol.REASON_LOST,
        message,
        started_at=claim["at"],
        gpus=[gpu["index"] for gpu in claim["gpus"]],
        host=claim["host"],
        pid=claim["pid"],
    )


def _log_bytes(attempt: Attempt) -> int:
    try:
        return os.path.getsize(attempt.job.at("logs", "training.log"))
    except OSError:
        return 0


def _progress(attempt: Attempt) -> dict[str, Any] | None:
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
