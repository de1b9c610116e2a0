"""What the database knows of tasks that a request has ended, or is about to delete."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Airflow loads plugins in all of its processes. What is imported late here, only the API server pays for.

log = logging.getLogger(__name__)

ENDED = ("success", "failed", "skipped", "removed", "upstream_failed")
_CANCEL = "CancelGpuJobOperator"


@dataclass(frozen=True)
class PartOfDag:
    """
    A DAG, one of its runs, or one task of a run.

    :param run_id: None for all runs of the DAG.
    :param task_id: None for all tasks of the run.
    """

    dag_id: str
    run_id: str | None = None
    task_id: str | None = None


def abandoned(since: datetime) -> list[tuple[str, str]]:
    """Return connection and job of each task that ended since then and asked for its job to end with it."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY

    return _jobs(
        select(XComModel.value)
        .join(TaskInstance, _same_task())
        .where(
            XComModel.key == KILL_XCOM_KEY,
            TaskInstance.state.in_(ENDED),
            # This process wrote the time, unless the triggerer has updated the row since.
            TaskInstance.updated_at >= since,
        )
    )


def to_be_deleted(part: PartOfDag) -> list[tuple[str, str]]:
    """
    Return connection and job of each job that nothing would end if this were deleted.

    These are jobs that end with their task, if the task has not ended; and jobs that a teardown ends, if that has not
    run.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import and_, or_, select
    from sqlalchemy.orm import aliased

    from airflow_provider_gpu_cluster.tasks.job_notes import TEARDOWN_XCOM_KEY
    from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY

    cancel = aliased(TaskInstance)
    teardown_is_due = (
        select(cancel.id)
        .where(
            cancel.dag_id == XComModel.dag_id,
            cancel.run_id == XComModel.run_id,
            cancel.operator == _CANCEL,
            or_(cancel.state.is_(None), cancel.state.not_in(ENDED)),
        )
        .exists()
    )
    task_is_due = or_(TaskInstance.state.is_(None), TaskInstance.state.not_in(ENDED))
    due = and_(XComModel.key == KILL_XCOM_KEY, task_is_due)
    if part.task_id is None:
        due = or_(due, and_(XComModel.key == TEARDOWN_XCOM_KEY, teardown_is_due))
    query = select(XComModel.value).join(TaskInstance, _same_task()).where(XComModel.dag_id == part.dag_id, due)
    if part.run_id is not None:
        query = query.where(XComModel.run_id == part.run_id)
    if part.task_id is not None:
        query = query.where(XComModel.task_id == part.task_id)
    return _jobs(query)


def fail_what_was_skipped(run: PartOfDag, since: datetime) -> int:
    """
    Make a run end as failed that a user has just marked failed.

    Airflow 3.3 skips the tasks of such a run that have not begun, lets its teardowns run, and then judges the run by
    its last tasks; those that were skipped count as successful. What the end of a task that failed would have made of
    them is ``upstream_failed``.

    :return: the number of tasks that are ``upstream_failed`` now.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import or_, select, update

    tasks = (TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id)
    with create_session() as session:
        state = session.scalar(select(DagRun.state).filter_by(dag_id=run.dag_id, run_id=run.run_id))
        teardown = session.scalar(
            select(TaskInstance.id).where(
                *tasks,
                TaskInstance.operator == _CANCEL,
                or_(TaskInstance.state.is_(None), TaskInstance.state.not_in(ENDED)),
            )
        )
        if state not in ("running", "queued") or teardown is None:
            return 0
        skipped = update(TaskInstance).where(*tasks, TaskInstance.state == "skipped", TaskInstance.updated_at >= since)
        done: Any = session.execute(
            skipped.values(state="upstream_failed").execution_options(synchronize_session=False)
        )
        return int(done.rowcount)


def _same_task() -> Any:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import and_

    names = ("dag_id", "run_id", "task_id", "map_index")
    return and_(*(getattr(XComModel, name) == getattr(TaskInstance, name) for name in names))


def _jobs(query: Any) -> list[tuple[str, str]]:
    from airflow.utils.session import create_session

    from airflow_provider_gpu_cluster.tasks.job_notes import jobs_in, read_note

    with create_session() as session:
        values = list(session.scalars(query))
    jobs: dict[tuple[str, str], None] = {}
    for value in values:
        named = jobs_in(read_note(value))
        jobs.update(dict.fromkeys(named))
        if not named:
            log.warning("an XCom that should name the GPU job of an ended task cannot be read: %.200r", value)
    return list(jobs)
