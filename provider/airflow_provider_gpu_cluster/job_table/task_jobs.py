"""The jobs that a task instance has launched, as the table knows them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.queries import rows_of
from airflow_provider_gpu_cluster.job_table.tables import jobs
from airflow_provider_gpu_cluster.jobs.handle import JobHandle


def jobs_of_task(session: Session, task: TaskKey) -> list[dict[str, Any]] | None:
    """
    Return the rows of the jobs of a task instance, as lists show them, the newest first; None if there is no table.

    :param task: whoever asks for the rows must have the right to see it.
    """
    if what_is_missing(session) is not None:
        return None
    rows = rows_of(session, *_are_of(task))
    return sorted(rows, key=lambda row: (row["submitted_at"], row["id"]), reverse=True)


def handle_in_table(
    session: Session, task: TaskKey, job_id: str | None = None, conn_id: str | None = None
) -> JobHandle | None:
    """
    Return the handle of a job of a task instance; None if the table knows none, or is not there.

    :param job_id: one of its jobs; by default the latest.
    :param conn_id: the cluster where it was, for one that was on several; by default the latest.
    """
    if what_is_missing(session) is not None:
        return None
    columns = (jobs.c.job_id, jobs.c.conn_id, jobs.c.job_dir, jobs.c.engine, jobs.c.submitted_at, jobs.c.gpus)
    query = select(*columns, jobs.c.element_count).where(*_are_of(task))
    if job_id is not None:
        query = query.where(jobs.c.job_id == job_id)
    if conn_id is not None:
        query = query.where(jobs.c.conn_id == conn_id)
    row = session.execute(query.order_by(jobs.c.submitted_at.desc(), jobs.c.id.desc()).limit(1)).first()
    if row is None:
        return None
    return JobHandle(
        row.job_id,
        row.conn_id,
        row.job_dir or "",
        row.engine or "",
        row.submitted_at.isoformat(),
        row.gpus or 0,
        row.element_count,
    )


def _are_of(task: TaskKey) -> list[Any]:
    return [jobs.c[name] == value for name, value in task._asdict().items()]
