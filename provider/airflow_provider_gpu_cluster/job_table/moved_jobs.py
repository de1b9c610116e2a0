"""Rows of jobs on clusters of a pool where they only waited before they were moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import FENCED_OFF, MARKS
from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.job_table.tables import attempts, details, jobs

_TASKS_AT_ONCE = 100


def leave_others(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """
    Note of jobs that wait or run on a cluster, as far as the table knows, that they have left it.

    That cluster may be out of reach, and tells it itself only when it is back.

    :param rows: where the tasks of jobs say that they are now.
    """
    now_at = {(*_task_of(row), row["job_id"]): row["conn_id"] for row in rows}
    for are_these in _of_tasks(rows):
        goes_on = select(jobs).where(are_these, jobs.c.state.not_in(protocol.FINAL_STATES))
        for row in map(dict, session.execute(goes_on).mappings().all()):
            conn_id = now_at.get((*_task_of(row), row["job_id"]))
            if conn_id not in (None, row["conn_id"]):
                left = {"state": protocol.CANCELLED, "reason": protocol.REASON_CANCELLED, "kind": FENCED_OFF}
                message = f"The job is on another cluster now ({conn_id})."
                session.execute(update(jobs).where(jobs.c.id == row["id"]).values(**left, message=message))


def drop_moved(session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
    """
    Delete the rows of jobs that wait, run or have ended on another cluster, as one job is in the table once.

    A row stays as long as it is the only one, or if the job has used GPUs there.

    :param rows: of jobs that may be moved ones, or where one was moved to.
    """
    for are_these in _of_tasks(rows):
        _drop(session, are_these)


def _task_of(row: Mapping[str, Any]) -> TaskKey:
    return TaskKey(*(row[name] for name in TaskKey._fields))


def _of_tasks(rows: Iterable[Mapping[str, Any]]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that all rows of the tasks of these rows fulfil, for some tasks after the others."""
    tasks = sorted(set(map(_task_of, rows)))
    for start in range(0, len(tasks), _TASKS_AT_ONCE):
        # Each by its columns, for which there is an index; databases differ in what they make of lists of tuples.
        yield or_(
            *(
                and_(*(jobs.c[name] == value for name, value in task._asdict().items()))
                for task in tasks[start : start + _TASKS_AT_ONCE]
            )
        )


def _drop(session: Session, are_these: ColumnElement[bool]) -> None:
    only_waited = or_(jobs.c.gpu_seconds.is_(None), jobs.c.gpu_seconds == 0)
    query = select(jobs.c.id, jobs.c.job_id).where(are_these, jobs.c.kind.in_(MARKS), only_waited)
    moved = {row.id: row.job_id for row in session.execute(query)}
    if not moved:
        return
    is_another = or_(jobs.c.kind.is_(None), jobs.c.kind.not_in(MARKS))
    elsewhere = set(session.scalars(select(jobs.c.job_id).where(are_these, is_another)))
    ids = [row for row, job_id in moved.items() if job_id in elsewhere]
    if ids:
        session.execute(delete(attempts).where(attempts.c.job.in_(ids)))
        session.execute(delete(details).where(details.c.job.in_(ids)))
        session.execute(delete(jobs).where(jobs.c.id.in_(ids)))
