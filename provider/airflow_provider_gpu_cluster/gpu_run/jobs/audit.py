"""The verb ``audit``: who has done what with a job, from where, and when."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Iterable, cast

from .. import protocol
from ..errors import Refused
from ..ledger.ledger import Ledger
from ..ledger.month import Month
from ..linux import regular_files
from ..protocol.acts import RESUBMIT, STAGE, SUBMIT
from ..protocol.ledger import ACT
from ..reply import Reply
from ..store.acts import cleaned

if TYPE_CHECKING:
    from ..protocol.acts import AuditReply, AuditRequest
    from ..protocol.ledger import ActLine
    from ..store.directories import JobDirectory, Root

#: How many acts of a job are told, the last ones.
MOST = 1000
_MOST_BYTES = 1 << 20
# With these, the record of a job begins.
_FIRST = (STAGE, SUBMIT, RESUBMIT)
_MOST_CHARACTERS = 500
_TEXTS = (
    "kind",
    "at",
    "job_id",
    "dag_id",
    "task_id",
    "run_id",
    "owner",
    "user",
    "act",
    "by",
    "through",
    "host",
    "address",
    "key",
    "details",
)
_NUMBERS = ("map_index", "attempt", "try_number")


def answer(root: Root, request: AuditRequest) -> Reply:
    """Carry out the verb ``audit``."""
    return Reply(audit(root, request["job_id"]))


def audit(root: Root, job_id: str) -> AuditReply:
    """
    Return the acts on a job, or on an array, the oldest first.

    They are those of the job's own record. If that is gone, with the job's directory perhaps, or its beginning is, they
    are the ledger's.

    :raises Refused: neither knows the job.
    """
    job = root.job(job_id)
    own = _own(job)
    if own and own[0]["act"] in _FIRST:
        return {"acts": own[-MOST:], "is_from_ledger": False}
    acts = _in_ledger(root, job_id)
    if own and len(own) >= len(acts):
        return {"acts": own[-MOST:], "is_from_ledger": False}
    if not acts and not job.exists():
        raise Refused(
            protocol.NO_SUCH_JOB,
            f"there is no job {job_id} under {root.path}, and the ledger there says nothing of one",
        )
    return {"acts": acts[-MOST:], "is_from_ledger": True}


def _own(job: JobDirectory) -> list[ActLine]:
    with contextlib.suppress(OSError):
        return _sound(regular_files.read_end(job.at(".job", "events.jsonl"), _MOST_BYTES).split(b"\n"), job.job_id)
    return []


def _in_ledger(root: Root, job_id: str) -> list[ActLine]:
    ledger = Ledger(root.own)
    start, sign = f'{{"kind": "{ACT}"'.encode(), f'"job_id": {json.dumps(job_id)}'.encode()
    found: list[ActLine] = []
    for name in ledger.months():
        with contextlib.suppress(OSError), Month.open(os.path.join(ledger.folder, name), create=False) as month:
            # Of a ledger's many lines, only those of the job are parsed.
            lines = (line for _, line in month.lines_from(0) if sign in line and line.startswith(start))
            found += _sound(lines, job_id)
    return sorted(found, key=lambda line: line["at"])


def _sound(lines: Iterable[bytes], job_id: str) -> list[ActLine]:
    """Return the acts among lines, as far as they are what they should be: the job may have written them."""
    found = []
    for text in lines:
        try:
            line: Any = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(line, dict) or line.get("kind") != ACT or line.get("job_id") != job_id:
            continue
        sound: dict[str, Any] = {
            name: cleaned(line[name], _MOST_CHARACTERS) for name in _TEXTS if isinstance(line.get(name), str)
        }
        sound.update({name: line[name] for name in _NUMBERS if type(line.get(name)) is int})
        if "act" in sound and "at" in sound:
            found.append(cast("ActLine", sound))
    return found
