"""Rows of jobs on clusters of a pool where they only waited before they were moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.gpu_run.protocol.placement import MARKS
from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.job_table.tables import attempts, details, jobs

_TASKS_AT_ONCE = 100


def drop_moved(session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
    """
    Delete the rows of jobs that wait, run or have ended on another cluster, as one job is in the table once.

    A row stays as long as it is the only one, or if the job has used GPUs there.

    :param rows: of jobs that may be moved ones, or where one was moved to.
    """
    tasks = sorted({TaskKey(*(row[name] for name in TaskKey._fields)) for row in rows})
    for start in range(0, len(tasks), _TASKS_AT_ONCE):
        # Each by its columns, for which there is an index; databases differ in what they make of lists of tuples.
        are_these = or_(
            *(
                and_(*(jobs.c[name] == value for name, value in task._asdict().items()))
                for task in tasks[start : start + _TASKS_AT_ONCE]
            )
        )
        _drop(session, are_these)


def _drop(session: Session, are_these: Any) -> None:
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
