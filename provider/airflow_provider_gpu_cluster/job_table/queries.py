"""What is asked of the table: a page of jobs, what they add up to, and what they can be filtered by."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.search import has_words
from airflow_provider_gpu_cluster.job_table.tables import details, jobs

# What a list shows of a job, by the name that pages and scripts use.
COLUMNS: dict[str, ColumnElement[Any]] = {
    "job_id": jobs.c.job_id,
    "conn_id": jobs.c.conn_id,
    "dag_id": jobs.c.dag_id,
    "run_id": jobs.c.run_id,
    "task_id": jobs.c.task_id,
    "map_index": jobs.c.map_index,
    "element_count": jobs.c.element_count,
    "user": jobs.c.user_name,
    "owner": jobs.c.owner,
    "engine": jobs.c.engine,
    "state": jobs.c.state,
    "reason": jobs.c.reason,
    "kind": jobs.c.kind,
    "message": jobs.c.message,
    "attempt": jobs.c.attempt,
    "gpus": jobs.c.gpus,
    "gpu_type": jobs.c.gpu_type,
    "host": jobs.c.host,
    "submitted_at": jobs.c.submitted_at,
    "started_at": jobs.c.started_at,
    "ended_at": jobs.c.ended_at,
    "gpu_seconds": jobs.c.gpu_seconds,
    "used_gpu_seconds": jobs.c.used_gpu_seconds,
    "is_latest": jobs.c.is_latest,
}
# Lists are not sorted by texts that nobody reads in order.
SORTABLE = tuple(name for name in COLUMNS if name != "message")
CHOICES = ("conn_id", "dag_id", "task_id", "user", "owner", "engine", "state", "reason", "gpu_type")
MOST_CHOICES = 1000
_MOST_ROWS = 10_000
_NEVER_NULL = {"job_id", "conn_id", "dag_id", "run_id", "task_id", "map_index", "state", "attempt", "submitted_at"}


@dataclass(frozen=True)
class Selection:
    """
    Which jobs.

    :param dags: the ids of the DAGs that may be seen.
    :param one_of: of a column, the values of which it must have one; an empty one chooses nothing.
    :param since: the first moment of a submit.
    :param until: the first moment that does not belong to it.
    :param words: words that must all occur in what names the job.
    """

    dags: Collection[str]
    one_of: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    words: str = ""

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield what the jobs must fulfil."""
        wanted = self.one_of.get("dag_id")
        yield jobs.c.dag_id.in_(sorted(self.dags if wanted is None else set(wanted) & set(self.dags)))
        for name, values in self.one_of.items():
            if name != "dag_id":
                yield COLUMNS[name].in_(values)
        if self.since is not None:
            yield jobs.c.submitted_at >= self.since
        if self.until is not None:
            yield jobs.c.submitted_at < self.until
        yield from has_words(self.words)


@dataclass(frozen=True)
class Sums:
    """What the jobs of a selection add up to."""

    jobs: int
    gpu_seconds: float
    used_gpu_seconds: float


def page_of(session: Session, selection: Selection, order_by: str, limit: int, offset: int) -> list[dict[str, Any]]:
    """
    Return some of the jobs of a selection, as rows by the names of :data:`COLUMNS`, ``progress`` and ``metrics``.

    :param order_by: one of :data:`SORTABLE`, with ``-`` before it for descending. Jobs for which it is unknown come
        last; jobs for which it is the same are in the order in which they came.
    """
    # First the ids, from narrow rows; what is wide is read of those alone that are shown.
    chosen = _ordered(select(jobs.c.id).where(*selection.conditions()), order_by).limit(limit).offset(offset)
    ids = list(session.scalars(chosen))
    found = {row["id"]: row for row in rows_of(session, jobs.c.id.in_(ids))} if ids else {}
    return [found[key] for key in ids if key in found]


def rows_of(session: Session, *conditions: ColumnElement[bool]) -> list[dict[str, Any]]:
    """Return rows as lists show them, with their ``id``, in no order."""
    columns = [column.label(f"c_{name}") for name, column in COLUMNS.items()]
    query = (
        select(jobs.c.id, *columns, details.c.progress, details.c.metrics)
        .outerjoin(details, details.c.job == jobs.c.id)
        .where(*conditions)
    )
    names = ("id", *COLUMNS, "progress", "metrics")
    return [dict(zip(names, row, strict=True)) for row in session.execute(query)]


def sums_of(session: Session, selection: Selection) -> Sums:
    """Return what the jobs of a selection add up to."""
    query = select(func.count(), func.sum(jobs.c.gpu_seconds), func.sum(jobs.c.used_gpu_seconds))
    count, gpu_seconds, used = session.execute(query.where(*selection.conditions())).one()
    return Sums(count, gpu_seconds or 0.0, used or 0.0)


def choices_in(session: Session, dags: Collection[str]) -> dict[str, list[str]]:
    """
    Return by what values jobs can be filtered, not more than :data:`MOST_CHOICES` of each.

    :param dags: the ids of the DAGs that may be seen.
    """
    may_be_seen = list(Selection(dags).conditions())
    others = [name for name in CHOICES if name != "dag_id"]
    # In one pass, as long as there are few combinations.
    together = session.execute(
        select(*(COLUMNS[name].label(f"c_{name}") for name in others)).where(*may_be_seen).distinct().limit(_MOST_ROWS)
    ).all()
    with_jobs = set(session.scalars(select(jobs.c.dag_id).distinct()))
    found = {"dag_id": sorted(with_jobs & set(dags))[:MOST_CHOICES]}
    for index, name in enumerate(others):
        values = {row[index] for row in together} - {None}
        if len(together) == _MOST_ROWS:
            one = select(COLUMNS[name]).where(*may_be_seen, COLUMNS[name].is_not(None)).distinct()
            values = set(session.scalars(one.order_by(COLUMNS[name]).limit(MOST_CHOICES)))
        found[name] = sorted(values)[:MOST_CHOICES]
    return found


def connections_of(session: Session, dags: Collection[str]) -> set[str]:
    """Return the connections at which some DAGs have launched jobs."""
    query = select(jobs.c.conn_id).where(*Selection(dags).conditions()).distinct()
    return set(session.scalars(query))


def _ordered(query: Select[Any], order_by: str) -> Select[Any]:
    name, is_descending = order_by.removeprefix("-"), order_by.startswith("-")
    column = COLUMNS[name]
    if name not in _NEVER_NULL:
        query = query.order_by(column.is_(None))
    both = (column, jobs.c.id)
    return query.order_by(*(one.desc() if is_descending else one.asc() for one in both))
