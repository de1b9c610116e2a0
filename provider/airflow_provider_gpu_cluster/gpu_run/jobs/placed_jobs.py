"""What this cluster knows of the placement of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store import arrays
from ..store.directories import JobDirectory, Root
from ..store.placements import placement_note
from .status import status_or_unknown

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..protocol.placement import Placed


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
    if job.attempts() or elements(root, job):
        found["status"] = status_or_unknown(root, engine, job_id, counts=False)
    return found


def elements(root: Root, job: JobDirectory) -> list[JobDirectory]:
    """Return the elements of an array; an empty list for another job."""
    if not job.exists():
        return []
    return [root.job(job_id) for job_id in arrays.elements_of(job)]
