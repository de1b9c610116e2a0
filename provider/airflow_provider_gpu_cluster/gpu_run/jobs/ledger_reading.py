"""
The verb ``read-ledger``: the ends of attempts, from a place in the ledger on, and how far some jobs are.

It looks at files alone: it asks no scheduler, writes nothing, and counts as no question about a job.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Iterator, Sequence

from .. import protocol
from ..ledger.ledger import Ledger
from ..ledger.month import Month
from ..protocol import array_status
from ..protocol.ledger import END
from ..reply import Reply
from ..store import arrays
from ..store.claims import run_facts
from ..store.next_attempt import is_followed
from .sound_status import sound

if TYPE_CHECKING:
    from ..protocol.ledger_reading import JobStanding, LedgerPlace, ReadLedgerCall
    from ..protocol.status import Status
    from ..store.directories import JobDirectory, Root

#: A reply has not more lines than this, in bytes, and each half of it takes not longer than this, in seconds.
MOST_BYTES = 1 << 19
MOST_S = 0.04
MOST_JOBS = 500
_OF_A_RECORD = ("reason", "kind", "host", "started_at", "ended_at", "placement")
_TOLD = ("job_id", "state", "attempt", *_OF_A_RECORD)
_START = f'{{"kind": "{END}"'.encode()


def answer(root: Root, request: ReadLedgerCall) -> Reply:
    """Carry out the verb ``read-ledger``."""
    deadline = time.monotonic() + MOST_S
    lines, place, is_all = _lines_from(Ledger(root.own), request["place"], deadline)
    standings = list(_standings(root, request["jobs"]))
    return Reply({"lines": lines, "place": place, "is_all": is_all, "jobs": standings})


def _lines_from(ledger: Ledger, place: LedgerPlace, deadline: float) -> tuple[list[Any], LedgerPlace, bool]:
    found: list[Any] = []
    name, offset, size = str(place["file"]), int(place["offset"]), 0
    for month in ledger.months():
        if month < name:
            continue
        begin = offset if month == name else 0
        name, offset = month, begin
        try:
            opened = Month.open(os.path.join(ledger.folder, month), create=False)
        except OSError:
            continue
        with opened:
            if begin > opened.size:
                # Somebody has begun this file anew.
                begin = 0
            offset = begin
            for offset, text in opened.lines_from(begin):
                if text.startswith(_START):
                    size += len(text)
                    with contextlib.suppress(ValueError, RecursionError):
                        line = json.loads(text)
                        found += [line] if isinstance(line, dict) else []
                if size > MOST_BYTES or time.monotonic() > deadline:
                    return found, {"file": name, "offset": offset}, False
    return found, {"file": name, "offset": offset}, True


def _standings(root: Root, job_ids: list[str]) -> Iterator[JobStanding]:
    deadline = time.monotonic() + MOST_S
    for job_id in job_ids[:MOST_JOBS]:
        yield _standing(root, str(job_id))
        if time.monotonic() > deadline:
            return


def _standing(root: Root, job_id: str) -> JobStanding:
    try:
        job = root.job(job_id)
        if not job.exists():
            return {"job_id": job_id, "state": None}
        elements = arrays.elements_of(job)
        if elements:
            status = _array_status(job_id, [_status(root.job(element)) for element in elements])
        else:
            status = _status(job)
    except Exception:
        # A job can write to its records.
        return {"job_id": job_id, "state": protocol.UNKNOWN}
    told: Any = {name: status[name] for name in _TOLD if status.get(name) is not None}  # type: ignore[literal-required]
    return told  # type: ignore[no-any-return]


def _array_status(job_id: str, elements: Sequence[Status]) -> Status:
    """Return the status of an array; once none of its elements goes on, also whether it was placed elsewhere."""
    status = array_status.summary(job_id, elements)
    marks = [element["placement"] for element in elements if element.get("placement")]
    if marks and status["state"] in protocol.FINAL_STATES:
        status["placement"] = marks[0]
    return status


def _status(job: JobDirectory) -> Status:
    """Return what the files of a job say of its latest attempt."""
    attempts = job.attempts()
    if not attempts:
        return {"job_id": job.job_id, "state": protocol.UNKNOWN}
    latest = attempts[-1]
    ended = latest.ended()
    claim = latest.claimed() if ended is None else None
    record: Any = ended or (claim and run_facts(claim)) or {}
    status: Any = {"job_id": job.job_id, "attempt": latest.number, "state": protocol.QUEUED}
    if is_followed(ended):
        status["attempt"] += 1
        return status  # type: ignore[no-any-return]
    if record:
        status["state"] = protocol.RUNNING if ended is None else record["state"]
    status.update({name: record.get(name) for name in _OF_A_RECORD})
    return sound(status)
