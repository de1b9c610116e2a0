"""All jobs: rows of a table in Airflow's own database, which needs no cluster to be read."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from airflow.utils.session import create_session
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from airflow_provider_gpu_cluster.job_table import queries
from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.queries import Selection
from airflow_provider_gpu_cluster.job_table.viewers import note_viewer
from airflow_provider_gpu_cluster.plugins.api.access import ReadableDags, ReadableLogs
from airflow_provider_gpu_cluster.plugins.shown import shown

router = APIRouter()
MOST_ROWS = 1000
_S_PER_HOUR = 3600
_ORDERS = tuple(sign + name for name in queries.SORTABLE for sign in ("", "-"))
_Values = Annotated[list[str], Query(max_length=1000)]


class JobRow(BaseModel):
    """
    A job, as lists show it.

    What is not known is null. ``progress`` and ``metrics`` are what the job has written itself; they are null for who
    may not read the logs of its DAG.
    """

    job_id: str
    conn_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = Field(description="-1 for a task that is not mapped")
    element_count: int | None = Field(description="number of elements of an array")
    user: str | None = Field(description="who triggered the run, else the owner of the DAG")
    owner: str | None
    engine: str | None
    state: str
    reason: str | None
    kind: str | None
    message: str | None
    attempt: int
    gpus: int | None = Field(description="of an array, per element")
    gpu_type: str | None
    host: str | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    gpu_seconds: float | None = Field(description="of all attempts, as far as they have ended or the job has told")
    used_gpu_seconds: float | None = Field(description="of these, those in which a GPU computed")
    progress: dict[str, Any] | None
    metrics: dict[str, Any] | None
    is_latest: bool = Field(description="false for a job from before its task was cleared")


class Jobs(BaseModel):
    """A page of jobs, and what all jobs of the selection add up to."""

    jobs: list[JobRow]
    total: int
    gpu_hours: float
    used_gpu_hours: float
    is_migrated: bool = Field(description="whether Airflow's database has the table of jobs")
    problem: str | None = Field(description="what to do if it has not")


class Choices(BaseModel):
    """By what values jobs can be filtered, at most 1,000 of each."""

    conn_id: list[str] = []
    dag_id: list[str] = []
    task_id: list[str] = []
    user: list[str] = []
    owner: list[str] = []
    engine: list[str] = []
    state: list[str] = []
    reason: list[str] = []
    gpu_type: list[str] = []
    is_migrated: bool
    problem: str | None


@router.get("/jobs")
def list_jobs(
    dags: ReadableDags,
    logs: ReadableLogs,
    conn_id: _Values = [],  # noqa: B006
    dag_id: _Values = [],  # noqa: B006
    run_id: _Values = [],  # noqa: B006
    task_id: _Values = [],  # noqa: B006
    user: _Values = [],  # noqa: B006
    owner: _Values = [],  # noqa: B006
    engine: _Values = [],  # noqa: B006
    state: _Values = [],  # noqa: B006
    reason: _Values = [],  # noqa: B006
    gpu_type: _Values = [],  # noqa: B006
    is_latest: bool | None = None,
    since: Annotated[
        datetime | None, Query(description="first moment of submits; UTC unless it says otherwise")
    ] = None,
    until: Annotated[datetime | None, Query(description="first moment that does not belong to it")] = None,
    q: Annotated[
        str, Query(max_length=500, description="words that occur in the job's id, DAG, run, task, user, host, message")
    ] = "",
    order_by: Annotated[
        Literal[_ORDERS], Query(description="a column; - for descending")  # type: ignore[valid-type]
    ] = "-submitted_at",
    limit: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 50,
    offset: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
) -> Jobs:
    """Return a page of the jobs of all DAGs that the user may read, and what the selection adds up to."""
    given: dict[str, list[Any]] = {
        "conn_id": conn_id,
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "user": user,
        "owner": owner,
        "engine": engine,
        "state": state,
        "reason": reason,
        "gpu_type": gpu_type,
        "is_latest": [] if is_latest is None else [is_latest],
    }
    one_of = {name: values for name, values in given.items() if values}
    selection = Selection(dags, one_of, _in_utc(since), _in_utc(until), q)
    with create_session() as session:
        problem = what_is_missing(session)
        if problem is not None:
            return Jobs(jobs=[], total=0, gpu_hours=0, used_gpu_hours=0, is_migrated=False, problem=problem)
        note_viewer()
        rows = queries.page_of(session, selection, order_by, limit, offset)
        sums = queries.sums_of(session, selection)
    dags_with_logs = logs({row["dag_id"] for row in rows})
    for row in rows:
        if row["dag_id"] not in dags_with_logs:
            row["progress"] = row["metrics"] = None
    return Jobs(
        jobs=[JobRow.model_validate(row) for row in shown(rows)],
        total=sums.jobs,
        gpu_hours=sums.gpu_seconds / _S_PER_HOUR,
        used_gpu_hours=sums.used_gpu_seconds / _S_PER_HOUR,
        is_migrated=True,
        problem=None,
    )


@router.get("/jobs/choices")
def choices(dags: ReadableDags) -> Choices:
    """Return by what values the jobs of all DAGs that the user may read can be filtered."""
    with create_session() as session:
        problem = what_is_missing(session)
        if problem is not None:
            return Choices(is_migrated=False, problem=problem)
        return Choices(**shown(queries.choices_in(session, dags)), is_migrated=True, problem=None)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=timezone.utc) if moment is not None and moment.tzinfo is None else moment
