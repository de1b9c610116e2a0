"""What the database knows of a job: its row of the table of jobs, and the earlier jobs of its task instance."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.utils.session import create_session

from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.job_table.task_jobs import jobs_of_task
from airflow_provider_gpu_cluster.jobs.handle import JobHandle

log = logging.getLogger(__name__)


Row = Mapping[str, Any]
Rows = tuple[Row | None, list[Row] | None]


def rows_of(handle: JobHandle, task: TaskKey) -> Rows:
    """
    Return the row of a job, and those of the jobs that its task instance had launched before; None without a table.

    A job that has run on several clusters has a row for each; they all count as earlier but for that of its handle.

    It blocks on the database.

    :param task: which the user may see.
    """
    try:
        with create_session() as session:
            rows = jobs_of_task(session, task)
    except Exception:
        # All else about the job is known without the table.
        log.exception("could not read the jobs of %s from the table", task)
        return None, None
    if rows is None:
        return None, None
    told = [{name: _text_of(value) for name, value in row.items()} for row in rows]
    place = handle.gpu_cluster_conn_id, handle.job_id
    own = next((row for row in told if (row["conn_id"], row["job_id"]) == place), None)
    parts = {part.job_id for part in handle.parts}
    return own, [row for row in told if row["job_id"] not in parts and _is_before(row, own)]


def _is_before(row: Row, own: Row | None) -> bool:
    # A job that was launched a moment ago is not in the table yet.
    if own is None:
        return True
    return row is not own and (row["job_id"] == own["job_id"] or row["submitted_at"] <= own["submitted_at"])


def _text_of(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
