"""
What launches have left in Airflow: the notes and handles in the XComs of tasks, read a little at a time.

The key of an XCom says nothing of when it was written, and Airflow has no index of that. So what is looked at often are
the runs that go on, and seldom the notes of all runs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import ColumnElement, Text, cast, or_, select, type_coerce
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.facts import JobFacts, StandingFacts, TaskKey
from airflow_provider_gpu_cluster.job_table.storable import count, json_object, moment, text
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.tasks.job_notes import HANDLE_XCOM_KEYS, LAUNCH_XCOM_KEY
from airflow_provider_gpu_cluster.tasks.links import GpuJobLink

# How much earlier than the last look an XCom may have been made that this look sees first.
MARGIN = timedelta(seconds=60)
_GOES_ON = ("running", "queued")
_MOST_RUNS = 2000
_RUNS_AT_ONCE = 200
_MOST_NOTE_CHARACTERS = 64_000


@dataclass
class RunsSeen:
    """
    Which runs a look has found.

    :param going_on: ids of those that went on, and may have ended since.
    :param newest: id of the newest one; None before the first look.
    """

    going_on: set[int] = field(default_factory=set)
    newest: int | None = None


def new_launches(session: Session, seen: RunsSeen, since: datetime) -> list[JobFacts]:
    """
    Return what was launched since then in runs that go on, went on at the last look, or have begun since.

    :param seen: what the last look has found; this one updates it.
    """
    going_on = set(session.scalars(select(DagRun.id).where(DagRun.state.in_(_GOES_ON)).limit(_MOST_RUNS)))
    of_runs: list[ColumnElement[bool]] = [XComModel.dag_run_id.in_(sorted(going_on | seen.going_on))]
    newest = session.scalar(select(DagRun.id).order_by(DagRun.id.desc()).limit(1))
    if seen.newest is not None:
        of_runs.append(XComModel.dag_run_id > seen.newest)
    is_new = XComModel.timestamp >= since - MARGIN
    found = _notes(session, is_new, or_(*of_runs))
    seen.going_on, seen.newest = going_on, newest
    return found


def all_launches(session: Session, since: datetime) -> list[JobFacts]:
    """Return what was launched since then, in all runs."""
    return _notes(session, XComModel.timestamp >= since - MARGIN)


def launches_by_runs(after: int = 0) -> Iterator[tuple[int, list[JobFacts]]]:
    """
    Yield what all runs have left of launches, some runs after the others, each with the id of the last of them.

    :param after: id of the run after which to begin.
    """
    while True:
        with create_session(scoped=False) as session:
            has_job = XComModel.key.in_((LAUNCH_XCOM_KEY, GpuJobLink().xcom_key))
            query = select(XComModel.dag_run_id).where(has_job, XComModel.dag_run_id > after).distinct()
            runs = list(session.scalars(query.order_by(XComModel.dag_run_id).limit(_RUNS_AT_ONCE)))
            facts = _of_runs(session, runs) if runs else []
        if not runs:
            return
        after = runs[-1]
        yield after, facts


def _of_runs(session: Session, runs: list[int]) -> list[JobFacts]:
    """
    Return the jobs of which tasks of these runs have notes or handles.

    Versions before the table have left no notes. Of several tasks that have the handle of a job, the first has launched
    it, and the others wait for it.
    """
    link = GpuJobLink().xcom_key
    keys = (LAUNCH_XCOM_KEY, link, *HANDLE_XCOM_KEYS)
    by_task: dict[TaskKey, list[Any]] = defaultdict(list)
    for row in session.execute(_query(session).where(XComModel.dag_run_id.in_(runs), XComModel.key.in_(keys))):
        by_task[TaskKey(*row[:4])].append(row)
    found: dict[tuple[str, str], tuple[bool, datetime, JobFacts]] = {}
    for task, stored in by_task.items():
        if not {LAUNCH_XCOM_KEY, link} & {row.key for row in stored}:
            # It returns the handle of a job of another task, perhaps.
            continue
        for row in stored:
            is_certain = row.key == LAUNCH_XCOM_KEY
            for facts in _facts(task, row.timestamp, row.value, is_certain=is_certain):
                key = facts.conn_id, facts.job_id
                candidate = not is_certain, row.timestamp, facts
                found[key] = min(found.get(key, candidate), candidate, key=lambda one: one[:2])
    return [facts for _, _, facts in found.values()]


def _notes(session: Session, *conditions: Any) -> list[JobFacts]:
    rows = session.execute(_query(session).where(XComModel.key == LAUNCH_XCOM_KEY, *conditions))
    return [facts for row in rows for facts in _facts(TaskKey(*row[:4]), row.timestamp, row.value, is_certain=True)]


def _query(session: Session) -> Any:
    # As text, so that one value that is no JSON does not spoil the others.
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    value = cast(XComModel.value, Text) if is_postgresql else type_coerce(XComModel.value, Text)
    columns = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    return select(*columns, XComModel.key, XComModel.timestamp, value.label("value"))


def _facts(task: TaskKey, made_at: datetime, stored: str | None, *, is_certain: bool) -> list[JobFacts]:
    """Return what a note says of its job; of an array on several clusters, of each part."""
    note = _note(stored)
    try:
        handle = JobHandle.from_json(note)  # type: ignore[arg-type]
    except (ValueError, RecursionError):
        return []
    if handle.submitted_at is None or not isinstance(note, dict):
        # It is only staged.
        return []
    told = note["parts"] if handle.parts else [note]
    return [
        # Of a part, what is said of the whole says nothing.
        _of_job(one, task, made_at, {**note, **dict.fromkeys(("state", "attempt")), **part}, is_certain=is_certain)
        for one, part in zip(handle.arrays, told, strict=True)
    ]


def _of_job(handle: JobHandle, task: TaskKey, made_at: datetime, note: dict[str, Any], *, is_certain: bool) -> JobFacts:
    request = json_object(note.get("request"))
    state, attempt = text(note.get("state"), 20), count(note.get("attempt"))
    return JobFacts(
        text(handle.gpu_cluster_conn_id, 250) or "",
        handle.job_id,
        task,
        is_certain,
        moment(handle.submitted_at) or made_at,
        known={
            "engine": text(handle.engine, 20),
            "job_dir": text(handle.job_dir, 4000),
            "gpus": handle.gpus,
            "element_count": handle.array_size,
            "user_name": text(note.get("user"), 250),
            "owner": text(note.get("owner"), 250),
            "gpu_type": text((request or {}).get("gpu_type"), 250),
        },
        standing=None if state is None or attempt is None else StandingFacts(attempt, state),
        shown={"request": request},
        is_here=is_certain,
    )


def _note(stored: str | None) -> object:
    """Return the value of an XCom, which Airflow stores as JSON in a text of JSON, or as plain JSON."""
    value: object = stored
    for _ in range(2):
        if isinstance(value, str) and len(value) < _MOST_NOTE_CHARACTERS:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
    return value
