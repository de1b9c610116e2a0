"""Interrupt a running job as the real thing would, so that a user sees at noon what his checkpoints are worth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..protocol.acts import INTERRUPT
from ..protocol.interruption import INTERRUPTIONS
from ..reply import Reply
from ..store import records
from ..store.acts import note_act
from ..store.directories import Attempt, Root

if TYPE_CHECKING:
    from ..protocol.interruption import InterruptionAnswer, InterruptionRecord
    from ..protocol.requests import Caller, InterruptCall

_LOOK_S = 0.05
# The supervisor looks twice a second; on another node, it may see a record seconds later.
ANSWERED_WITHIN_S = 20.0


def answer(root: Root, request: InterruptCall) -> Reply:
    """Carry out the verb ``interrupt``."""
    by, caller = request["by"], request.get("caller")
    message = interrupt(root, request["job_id"], request["kind"], by=by, name=request["id"], caller=caller)
    return Reply({"message": message})


def interrupt(root: Root, job_id: str, kind: str, *, by: str, name: str, caller: Caller | None = None) -> str:
    """
    Interrupt a running job, and return what was done, as a sentence.

    :param kind: one of :data:`.INTERRUPTIONS`.
    :param by: who asks, for the record.
    :param name: unique to this interruption; the same one is carried out once.
    :param caller: who makes the request, for the audit trail.
    :raises Refused: there is no such job, or it does not run.
    """
    if kind not in INTERRUPTIONS:
        raise Refused(protocol.BAD_REQUEST, f"a job cannot be interrupted as {kind!r}; valid is {_or(INTERRUPTIONS)}")
    attempt = _running(root, job_id)
    asked: InterruptionRecord = {"id": name, "kind": kind, "by": by, "at": records.now()}
    before: InterruptionRecord | None = records.read_json(attempt.at("interrupt.json"))
    if before is None or before.get("id") != name:
        records.write_json(attempt.at("interrupt.json"), asked)
        note_act(
            attempt.job.path,
            INTERRUPT,
            caller={} if caller is None else caller,
            through=by,
            attempt=attempt.number,
            key=name,
            details=f"as {kind}",
        )
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    while time.monotonic() < deadline:
        said: InterruptionAnswer | None = records.read_json(attempt.at("interrupted.json"))
        if said is not None and said.get("id") == name:
            return str(said["message"])
        if attempt.ended() is not None:
            return "it has ended meanwhile"
        time.sleep(_LOOK_S)
    return (
        f"its supervisor has not answered within {ANSWERED_WITHIN_S:g} s; it is of an earlier version, its node cannot "
        f"see {attempt.path}, or it is gone"
    )


def _running(root: Root, job_id: str) -> Attempt:
    """
    Return the running attempt of a job.

    :raises Refused: there is none.
    """
    job = root.job(job_id)
    attempts = job.attempts()
    if not attempts:
        from ..store import arrays

        elements = arrays.elements_of(job) if job.exists() else []
        if elements:
            message = f"{job_id} is an array of {len(elements)} jobs; name one of them, such as {elements[0]}"
            raise Refused(protocol.BAD_REQUEST, message)
        why = "was staged, and not launched" if job.exists() else f"is no job under {root.path}"
        raise Refused(protocol.NO_SUCH_JOB, f"{job_id} {why}")
    attempt = attempts[-1]
    ended = attempt.ended()
    if ended is not None:
        raise Refused(protocol.JOB_CONFLICT, f"job {job_id} does not run: it has ended, as {ended['state']}")
    claim = attempt.claimed()
    if claim is None or claim["by"] != "supervisor":
        raise Refused(protocol.JOB_CONFLICT, f"job {job_id} does not run: it waits for its turn")
    return attempt


def _or(words: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, words[:-1]))} or {words[-1]!r}"
