"""
The attempt that follows another by itself.

Whoever notices an end calls :func:`follow`: the process that has run the attempt, one that serves a queue, or one that
somebody asks about the job. The exit record says what follows, so all of them come to the same result.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .. import protocol
from ..errors import Refused
from ..protocol.acts import RECOVER
from ..protocol.cancellation import words_of
from . import markers, records
from .acts import note_act
from .claims import claim_by
from .directories import Attempt, JobDirectory
from .placed_launches import Misplaced, misplaced
from .unfinished import note_unfinished, unfinished_note
from .writing import write_text

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest, EndFacts, ExitRecord
    from ..protocol.recovery import NextAttempt

_OF_A_RECOVERY: dict[str, type | tuple[type, ...]] = {
    "first": int,
    "used": dict,
    "reason": str,
    "why": str,
    "streak": int,
    "not_before": (int, float),
    "quick_ends": list,
    "past": list,
}


def is_followed(ended: ExitRecord | None) -> bool:
    """Return whether another attempt follows an end. What makes no sense does not: the job may have written it."""
    following: Any = None if ended is None else ended.get("next")
    return is_recovery(following.get("recovery") if isinstance(following, dict) else None)


def is_recovery(recovery: Any) -> bool:
    """Return whether a value can say why an attempt follows another."""
    return isinstance(recovery, dict) and all(
        isinstance(recovery.get(name), kind) for name, kind in _OF_A_RECOVERY.items()
    )


def follow(job: JobDirectory) -> Attempt | None:
    """
    Make the attempt that follows the job's latest one, if that has ended and says so.

    :return: the new attempt, which is still to be launched; None when there is nothing to do.
    """
    if _due(job) is None:
        return None
    with job.lock():
        latest = _due(job)
        if latest is None:
            return None
        ended = latest.ended()
        request = latest.recorded_request()
        if ended is None or request is None:
            return None
        return _made(job, latest, request, ended["next"])


def _due(job: JobDirectory) -> Attempt | None:
    """Return the latest attempt if another is to follow it and does not exist yet."""
    latest = job.attempts()[-1:]
    with contextlib.suppress(ValueError):
        if latest and is_followed(latest[0].ended()):
            return latest[0]
    return None


def _made(job: JobDirectory, latest: Attempt, request: AttemptRequest, following: NextAttempt) -> Attempt | None:
    number = latest.number + 1
    request["recovery"] = following["recovery"]
    # What has begun goes on.
    request.pop("over_budget", None)
    request["requested_at"] = records.now()
    if "memory_bytes" in following:
        request["spec"]["memory_bytes"] = following["memory_bytes"]
    env: dict[str, str] | None = records.read_json(latest.at("env.json"), records.MOST_BYTES_OF_LISTS)
    attempt = job.add_attempt(number, request, env or {})
    if attempt is None:
        return None
    note_unfinished(job.path, number, unfinished_note(request))
    latest.forget_secrets()
    attempt.event("follows", attempt=latest.number, reason=following["recovery"]["reason"])
    note_act(job.path, RECOVER, attempt=number, details=following["recovery"]["why"], asked=request)
    asked = latest.cancellation()
    if asked is not None:
        # It came when the end was being recorded.
        attempt.claim(claim_by("cancel"))
        mark: EndFacts = {"placement": asked["placement"]} if "placement" in asked else {}
        attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, words_of(asked), **mark)
        return None
    elsewhere = _elsewhere(job, request)
    if elsewhere is not None:
        attempt.claim(claim_by("cancel"))
        mark = {"placement": elsewhere.mark}
        attempt.finish(protocol.CANCELLED, protocol.REASON_CANCELLED, elsewhere.message, **mark)
        return None
    with contextlib.suppress(OSError):
        markers.clear(job.at("outputs"))
        status = "QUEUED attempt={} after={}\n".format(number, following["recovery"]["reason"])
        write_text(job.at("outputs", "status.txt"), status)
    return attempt


def _elsewhere(job: JobDirectory, request: AttemptRequest) -> Misplaced | None:
    """Return why the job must not go on here. Where that cannot be read, it is looked at again before it starts."""
    with contextlib.suppress(OSError, Refused):
        return misplaced(job, request)
    return None
