"""What one source tells about a job, and what of it a row takes over. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_gpu_cluster.gpu_run import protocol

# Of one attempt, what is told later counts; but not that it waits, of one that is known to run or to have ended.
_RANKS = {protocol.UNKNOWN: 0, protocol.QUEUED: 1, protocol.RUNNING: 2}
_ENDED = 3
GONE = "The cluster has no records of this job any more, so how it has ended is not known."


class TaskKey(NamedTuple):
    """A task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


@dataclass(frozen=True)
class StandingFacts:
    """
    How far a job is. None is what the source does not know.

    :param message: one sentence: why it waits, or how it ended.
    """

    attempt: int
    state: str
    reason: str | None = None
    kind: str | None = None
    message: str | None = None
    host: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class AttemptFacts:
    """
    What one attempt has used.

    :param element: index of the element whose attempt it is; -1 for a job that is no array.
    """

    element: int
    attempt: int
    state: str
    reason: str | None = None
    ended_at: datetime | None = None
    gpu_seconds: float | None = None
    used_gpu_seconds: float | None = None


@dataclass(frozen=True)
class JobFacts:
    """
    What a source tells about a job.

    :param task: the task instance that has launched it; None if the source does not know, which makes no row.
    :param is_certain: whether that is sure; who only has a handle may have got it from another task.
    :param submitted_at: when it was launched; likewise.
    :param known: columns that do not change, such as ``engine`` and ``gpus``.
    :param shown: columns of JSON, such as ``progress``.
    :param is_gone: whether its cluster has forgotten it, and how it ended.
    :param is_here: whether its task says that it is on this cluster now, and on no other.
    """

    conn_id: str
    job_id: str
    task: TaskKey | None = None
    is_certain: bool = False
    submitted_at: datetime | None = None
    known: Mapping[str, Any] = field(default_factory=dict)
    standing: StandingFacts | None = None
    attempts: tuple[AttemptFacts, ...] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)
    is_gone: bool = False
    is_here: bool = False


NEW_ROW: Mapping[str, Any] = {
    "map_index": -1,
    "is_latest": True,
    "is_launched": False,
    "engine": None,
    "element_count": None,
    "user_name": None,
    "owner": None,
    "state": protocol.UNKNOWN,
    "reason": None,
    "kind": None,
    "attempt": 0,
    "gpus": None,
    "gpu_type": None,
    "host": None,
    "started_at": None,
    "ended_at": None,
    "gpu_seconds": None,
    "used_gpu_seconds": None,
    "message": None,
    "job_dir": None,
}


def changes(row: Mapping[str, Any], facts: JobFacts) -> dict[str, Any]:
    """Return the columns of a row that change with what a source tells."""
    found: dict[str, Any] = {}
    if facts.is_certain and not row["is_launched"] and facts.task is not None:
        found.update(facts.task._asdict(), is_launched=True)
        if facts.submitted_at is not None:
            found["submitted_at"] = facts.submitted_at
    elif facts.is_certain and facts.submitted_at is not None and facts.submitted_at < row["submitted_at"]:
        # Who knows a later attempt knows when that was submitted.
        found["submitted_at"] = facts.submitted_at
    is_better = facts.is_certain and not row["is_launched"]
    for name, value in facts.known.items():
        if value is not None and (row[name] is None or is_better or (name == "started_at" and value < row[name])):
            found[name] = value
    if facts.standing is not None:
        found.update(_of_standing(row, facts.standing))
    if facts.is_gone and row["state"] not in protocol.FINAL_STATES:
        found.update(state=protocol.UNKNOWN, message=GONE)
    return {name: value for name, value in found.items() if row[name] != value}


def _of_standing(row: Mapping[str, Any], told: StandingFacts) -> dict[str, Any]:
    is_newer = told.attempt > row["attempt"]
    rank, known = _RANKS.get(told.state, _ENDED), _RANKS.get(row["state"], _ENDED)
    if told.attempt < row["attempt"] or (not is_newer and rank < known):
        return {}
    values = {name: value for name, value in vars(told).items() if value is not None}
    if is_newer or rank > known:
        # Nothing of how the attempt before it has ended, or waited, is left.
        values = {**dict.fromkeys(("reason", "kind", "message")), **values}
    if is_newer:
        values = {**dict.fromkeys(("started_at", "ended_at", "host")), **values}
    return values
