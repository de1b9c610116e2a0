"""
What the next attempt of a job goes on with: its number, and the recoveries that are used up.

A job that comes from another cluster has its earlier attempts there. What was brought along with it is noted in
``.job/carried.json``, and counts until there is another attempt here.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from . import records
from .directories import Attempt, JobDirectory
from .next_attempt import is_followed, is_recovery

if TYPE_CHECKING:
    from ..protocol.carrying import Continuation
    from ..protocol.records import AttemptRequest
    from ..protocol.recovery import PastAttempt, Recovery


def continuation_of(job: JobDirectory) -> Continuation:
    """Return what the next attempt goes on with, whether it is made here or on another cluster."""
    attempts = job.attempts()
    carried = carried_note(job)
    if carried is not None:
        return _sound(carried.get("continuation"))
    if not attempts:
        return {"attempt": 1}
    latest = attempts[-1]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _after(latest)
    return {"attempt": latest.number + 1}


def _after(latest: Attempt) -> Continuation:
    ended, request = latest.ended(), latest.recorded_request()
    if ended is not None and is_followed(ended):
        # Nobody has made the next attempt yet.
        recovery = ended["next"]["recovery"]
        continuation = _going_on(recovery, latest.number + 1)
        if "memory_bytes" in ended["next"]:
            continuation["memory_bytes"] = ended["next"]["memory_bytes"]
        return continuation
    number = latest.number + 1
    if ended is None or request is None or "placement" not in ended:
        return {"attempt": number}
    if not ended.get("started_at"):
        # It was taken back while it waited: there never was an attempt of that number.
        number = latest.number
    if "recovery" not in request:
        return {"attempt": number}
    continuation = _going_on(request["recovery"], number)
    memory = request["spec"].get("memory_bytes")
    if memory is not None:
        continuation["memory_bytes"] = memory
    return continuation


def _going_on(recovery: Recovery, number: int) -> Continuation:
    kept: Recovery = {**recovery}
    # They are nodes of one cluster.
    kept.pop("exclude_nodes", None)
    return {"attempt": number, "recovery": kept, "wait_s": max(0.0, recovery["not_before"] - time.time())}


def from_cluster(continuation: Continuation, conn_id: str) -> Continuation:
    """
    Return a continuation in which each earlier attempt names the cluster where it was.

    :param conn_id: of the cluster that has made the continuation.
    """
    recovery = continuation.get("recovery")
    if not conn_id or recovery is None or not is_recovery(recovery):
        return continuation
    past: list[PastAttempt] = [{**one, "conn_id": one.get("conn_id", conn_id)} for one in recovery["past"]]
    return {**continuation, "recovery": {**recovery, "past": past}}


# -- what was brought along --------------------------------------------------------------------------------------


def carried_note(job: JobDirectory) -> dict[str, Any] | None:
    """Return the note of what was brought along from another cluster; None if an attempt was made here since."""
    with contextlib.suppress(OSError, ValueError):
        note: dict[str, Any] | None = records.read_json(job.at(".job", "carried.json"), records.MOST_BYTES_OF_LISTS)
        if note is not None and note.get("after") == _number_of_latest(job):
            return note
    return None


def note_carried(job: JobDirectory, **facts: object) -> None:
    """Add to that note."""
    note = {**(carried_note(job) or {}), **facts, "after": _number_of_latest(job), "at": records.now()}
    records.write_json(job.at(".job", "carried.json"), note)


def _number_of_latest(job: JobDirectory) -> int:
    attempts = job.attempts()
    return attempts[-1].number if attempts else 0


def _sound(continuation: Any) -> Continuation:
    """Return a continuation as it was brought along; the job can have written into the note."""
    number = continuation.get("attempt") if isinstance(continuation, dict) else None
    if type(number) is not int or number < 1:
        return {"attempt": 1}
    found: Continuation = {"attempt": number}
    if is_recovery(continuation.get("recovery")):
        found["recovery"] = continuation["recovery"]
        wait_s, memory = continuation.get("wait_s"), continuation.get("memory_bytes")
        found["wait_s"] = float(wait_s) if isinstance(wait_s, (int, float)) else 0.0
        if type(memory) is int and memory > 0:
            found["memory_bytes"] = memory
    return found


# -- the next attempt --------------------------------------------------------------------------------------------


def next_number(job: JobDirectory) -> int:
    """Return the number of the next attempt here."""
    latest = _number_of_latest(job)
    return max(latest + 1, continuation_of(job)["attempt"])


def go_on(job: JobDirectory, request: AttemptRequest, number: int) -> None:
    """
    Let an attempt that is about to be made go on where the job has stopped.

    :param request: of that attempt, which is changed.
    """
    attempts = job.attempts()
    continuation = continuation_of(job)
    if "recovery" not in continuation or (attempts and attempts[-1].request()["generation"] != request["generation"]):
        return
    recovery = continuation["recovery"]
    # Its logs begin here, and places in them have this number.
    recovery["first"] = number
    recovery["not_before"] = time.time() + continuation.get("wait_s", 0.0)
    request["recovery"] = recovery
    if "memory_bytes" in continuation:
        request["spec"] = {**request["spec"], "memory_bytes": continuation["memory_bytes"]}
