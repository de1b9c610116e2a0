"""What this cluster knows of the placement of a job."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import Refused
from ..store import arrays
from ..store.directories import Attempt, JobDirectory, Root
from ..store.placements import placement_note, sound_placement
from .status import status_or_unknown

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.placement import Placed, Placement


def placed(root: Root, engine: Engine, job_id: str) -> Placed:
    """
    Return what this cluster knows of a job's placement and of its last attempt; empty when it knows nothing.

    This does not count as a question about the job.
    """
    found: Placed = {}
    note = placement_note(root, job_id)
    if note is not None:
        found["placement"], found["kind"] = note["placement"], note["kind"]
        found["chosen"] = list(note.get("chosen", {}).values())
    job = root.job(job_id)
    attempts = job.attempts()
    launched = _launched(attempts[-1]) if attempts else None
    if launched is not None:
        found["launched"] = launched
    if attempts or elements(root, job):
        found["status"] = status_or_unknown(root, engine, job_id, counts=False)
    return found


def _launched(attempt: Attempt) -> Placement | None:
    """Return under which placement an attempt was launched; None for one without, and for one that cannot be read."""
    with contextlib.suppress(OSError, ValueError, Refused):
        placement = sound_placement(attempt.request().get("placement"))
        return {"epoch": placement["epoch"], "key": placement["key"]}
    return None


def elements(root: Root, job: JobDirectory) -> list[JobDirectory]:
    """Return the elements of an array; an empty list for another job."""
    if not job.exists():
        return []
    return [root.job(job_id) for job_id in arrays.elements_of(job)]
