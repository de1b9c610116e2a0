"""
The records of an array of jobs, in the directory of the array.

A user asks for an array as for one job, but each of its elements is a job with a directory of its own. The directory
of the array itself holds the inputs that its elements get copies of, and two records:

``array.json``    the job ids of its elements, in their order, and those of earlier elements
``cancel.json``   when it was last cancelled
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import records
from .directories import JobDirectory

if TYPE_CHECKING:
    from ..protocol.cancellation import CancelRecord
    from ..protocol.records import ArrayRecord


def elements_of(job: JobDirectory) -> list[str]:
    """Return the job ids of an array's elements; an empty list for another job."""
    return list(_record(job).get("elements", ()))


def all_elements_of(job: JobDirectory) -> list[str]:
    """Return the job ids of an array's elements and of its earlier elements."""
    record = _record(job)
    return [*record.get("elements", ()), *record.get("former", ())]


def keep_elements(job: JobDirectory, job_ids: list[str]) -> None:
    """Note the elements of an array."""
    former = [job_id for job_id in all_elements_of(job) if job_id not in set(job_ids)]
    if elements_of(job) != job_ids:
        record: ArrayRecord = {"elements": job_ids, "former": former}
        records.write_json(job.at(".job", "array.json"), record)


def _record(job: JobDirectory) -> ArrayRecord:
    record: ArrayRecord | None = records.read_json(job.at(".job", "array.json"), records.MOST_BYTES_OF_LISTS)
    return record or {}


def note_cancellation(job: JobDirectory, by: str) -> None:
    """Note that an array was cancelled, for a process that is about to launch it."""
    cancellation: CancelRecord = {"by": by, "at": records.now(), "token": records.new_name()}
    records.write_json(job.at(".job", "cancel.json"), cancellation)


def last_cancellation(job: JobDirectory) -> CancelRecord | None:
    """Return who last cancelled an array, and a token that no other cancellation has; None when nobody has."""
    cancellation: CancelRecord | None = records.read_json(job.at(".job", "cancel.json"))
    return cancellation
