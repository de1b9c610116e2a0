"""Writing what sources tell into the table. To write the same again changes nothing, whoever else writes meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from airflow.utils.session import create_session
from sqlalchemy import Table, and_, func, or_, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import MARKS
from airflow_provider_gpu_cluster.job_table.facts import NEW_ROW, JobFacts, TaskKey, changes
from airflow_provider_gpu_cluster.job_table.moved_jobs import drop_moved, leave_others
from airflow_provider_gpu_cluster.job_table.search import search_text
from airflow_provider_gpu_cluster.job_table.tables import attempts, details, jobs
from airflow_provider_gpu_cluster.jobs.handle import is_same_array

AT_ONCE = 500
"""How many jobs to write in one transaction."""
_TASKS_AT_ONCE = 100
_SEARCHED = {"job_id", "dag_id", "run_id", "task_id", "user_name", "host", "message"}
_Key = tuple[str, str]


def write(facts: Sequence[JobFacts]) -> None:
    """
    Write what sources tell, the earliest first, in transactions of its own.

    :raises SQLAlchemyError: the database cannot be written to.
    """
    for start in range(0, len(facts), AT_ONCE):
        for attempt in _tries():
            with attempt, create_session(scoped=False) as session:
                record(session, facts[start : start + AT_ONCE])


def _tries() -> Retrying:
    """Try again what a database gives up when two write at once, or while SQLite is locked."""
    return Retrying(
        retry=retry_if_exception_type((OperationalError, IntegrityError)),
        stop=stop_after_attempt(5),
        wait=wait_random(0.01, 0.3),
        reraise=True,
    )


def record(session: Session, facts: Sequence[JobFacts]) -> None:
    """
    Write what sources tell, of not more than :data:`AT_ONCE` jobs, in a transaction that the caller commits.

    :param facts: what was told, the earliest first.
    """
    told: dict[_Key, list[JobFacts]] = defaultdict(list)
    for one in facts:
        told[one.conn_id, one.job_id].append(one)
    rows = _locked(session, told)
    new = {key: row for key, all_of in told.items() if key not in rows and (row := new_row(all_of)) is not None}
    if new:
        _insert_missing(session, list(new.values()))
        # Another process may have been faster.
        rows.update(_locked(session, new))
    for key, row in rows.items():
        found: dict[str, Any] = {}
        for one in told[key]:
            found.update(changes({**row, **found}, one))
        _update(session, row, {name: value for name, value in found.items() if row[name] != value})
    ids = {key: row["id"] for key, row in rows.items()}
    _record_details(session, ids, told)
    _record_attempts(session, rows, told)
    added = [rows[key] for key in new if key in rows]
    leave_others(session, [row for key, row in rows.items() if any(one.is_here for one in told[key])])
    drop_moved(session, [*added, *(row for row in rows.values() if row["kind"] in MARKS)])
    if new:
        _mark_latest(session, added)


def new_row(facts: Iterable[JobFacts]) -> dict[str, Any] | None:
    """Return the row that facts make; None if they do not say whose job it is, and since when."""
    facts = list(facts)
    first = next((one for one in facts if one.task is not None and one.submitted_at is not None), None)
    if first is None or first.task is None:
        return None
    row = {**NEW_ROW, "conn_id": first.conn_id, "job_id": first.job_id, **first.task._asdict()}
    row["submitted_at"] = first.submitted_at
    for one in facts:
        row.update(changes(row, one))
    return {**row, "search_text": _search_text(row)}


def _locked(session: Session, keys: Collection[_Key]) -> dict[_Key, dict[str, Any]]:
    """Return the rows that are there, and keep others from changing them until the transaction ends."""
    by_connection: dict[str, list[str]] = defaultdict(list)
    for conn_id, job_id in keys:
        by_connection[conn_id].append(job_id)
    query = select(jobs).where(
        or_(*((jobs.c.conn_id == conn_id) & jobs.c.job_id.in_(ids) for conn_id, ids in by_connection.items()))
    )
    # All in the same order, so that no two processes wait for each other.
    found = session.execute(query.order_by(jobs.c.id).with_for_update()).mappings() if by_connection else ()
    return {(row["conn_id"], row["job_id"]): dict(row) for row in found}


def _update(session: Session, row: dict[str, Any], found: dict[str, Any]) -> None:
    if found:
        row.update(found)
        if _SEARCHED & found.keys():
            found["search_text"] = row["search_text"] = _search_text(row)
        session.execute(update(jobs).where(jobs.c.id == row["id"]).values(found))


def _search_text(row: Mapping[str, Any]) -> str:
    return search_text(
        (row[name] for name in ("job_id", "dag_id", "run_id", "task_id", "user_name", "host")), row["message"]
    )


def _insert_missing(session: Session, rows: list[dict[str, Any]]) -> None:
    rows.sort(key=lambda row: (row["conn_id"], row["job_id"]))
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        session.execute(postgresql.insert(jobs).on_conflict_do_nothing(), rows)
    elif dialect == "sqlite":
        session.execute(sqlite.insert(jobs).on_conflict_do_nothing(), rows)
    else:
        session.execute(mysql.insert(jobs).on_duplicate_key_update(id=jobs.c.id), rows)


def _put(session: Session, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, or give those that are there these values. All have the same columns."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    names = [name for name in rows[0] if name not in keys]
    dialect = session.get_bind().dialect.name
    statement: Any
    if dialect in ("postgresql", "sqlite"):
        statement = (postgresql if dialect == "postgresql" else sqlite).insert(table)
        values = {name: statement.excluded[name] for name in names}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=values)
    else:
        statement = mysql.insert(table)
        statement = statement.on_duplicate_key_update({name: statement.inserted[name] for name in names})
    session.execute(statement, rows)


def _record_details(session: Session, ids: Mapping[_Key, int], told: Mapping[_Key, list[JobFacts]]) -> None:
    # By the columns that are told, as others stay as they are.
    together: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for key, job in ids.items():
        values = {name: value for one in told[key] for name, value in one.shown.items() if value is not None}
        if values:
            together[tuple(sorted(values))].append({"job": job, **values})
    for rows in together.values():
        _put(session, details, sorted(rows, key=lambda row: row["job"]))


def _record_attempts(
    session: Session, rows: Mapping[_Key, dict[str, Any]], told: Mapping[_Key, list[JobFacts]]
) -> None:
    found: dict[tuple[int, int, int], dict[str, Any]] = {}
    for key, row in rows.items():
        for one in told[key]:
            for attempt in one.attempts:
                found[row["id"], attempt.element, attempt.attempt] = {"job": row["id"], **vars(attempt)}
    touched = {place[0] for place in found}
    if touched:
        known = select(attempts.c.job, attempts.c.element, attempts.c.attempt).where(
            attempts.c.job.in_(touched), attempts.c.state.in_(protocol.FINAL_STATES)
        )
        for place in map(tuple, session.execute(known)):
            if place in found and found[place]["state"] not in protocol.FINAL_STATES:
                # Told late, by one who has not seen the end yet.
                del found[place]
    if not found:
        return
    _put(session, attempts, [found[place] for place in sorted(found)])
    sums = session.execute(
        select(attempts.c.job, func.sum(attempts.c.gpu_seconds), func.sum(attempts.c.used_gpu_seconds))
        .where(attempts.c.job.in_(touched))
        .group_by(attempts.c.job)
    )
    used = {job: {"gpu_seconds": gpu_seconds, "used_gpu_seconds": used} for job, gpu_seconds, used in sums}
    for row in rows.values():
        if row["id"] in touched:
            values: dict[str, Any] = used.get(row["id"], {})
            if row["element_count"] is not None or any(job == row["id"] and index >= 0 for job, index, _ in found):
                values = {**values, **_of_elements(session, row)}
            _update(session, row, {name: value for name, value in values.items() if row[name] != value})


def _of_elements(session: Session, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an array is, as the last attempts of its elements tell."""
    query = select(attempts.c.element, attempts.c.state, attempts.c.reason, attempts.c.ended_at)
    latest = {
        element: rest
        for element, *rest in session.execute(
            query.where(attempts.c.job == row["id"], attempts.c.element >= 0).order_by(attempts.c.attempt)
        )
    }
    # Without the note of its launch, its size is told by those that have ended.
    size = max(row["element_count"] or 0, max(latest, default=-1) + 1)
    if row["state"] in protocol.FINAL_STATES and size == row["element_count"]:
        return {}
    found: dict[str, Any] = {"element_count": size, "attempt": max(row["attempt"], 1)}
    ends = [rest for rest in latest.values() if rest[0] in protocol.FINAL_STATES]
    if len(ends) < size:
        return {**found, "state": protocol.RUNNING}
    # It ends like the element that ended badly first.
    bad = [rest for rest in ends if rest[0] != protocol.SUCCEEDED]
    state, reason, _ = min(bad or ends, key=lambda rest: rest[2])
    ended_at = max(rest[2] for rest in ends)
    mark = next((rest[1] for rest in bad if rest[1] in MARKS), None)
    if mark is not None:
        # It was placed on another cluster, whatever has become of some of them here.
        state, reason = protocol.CANCELLED, protocol.REASON_CANCELLED
    return {**found, "state": state, "reason": reason, "kind": mark or reason, "ended_at": ended_at}


def _mark_latest(session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
    """Say which job of each of these tasks is the latest."""
    names = TaskKey._fields
    tasks = sorted({TaskKey(*(row[name] for name in names)) for row in rows})
    by_task: dict[TaskKey, list[Any]] = defaultdict(list)
    for start in range(0, len(tasks), _TASKS_AT_ONCE):
        # Each by its columns, for which there is an index; databases differ in what they make of lists of tuples.
        are_these = or_(
            *(
                and_(*(jobs.c[name] == value for name, value in task._asdict().items()))
                for task in tasks[start : start + _TASKS_AT_ONCE]
            )
        )
        columns = [jobs.c[name] for name in names]
        own = (jobs.c.id, jobs.c.is_latest, jobs.c.submitted_at, jobs.c.job_id)
        for row in session.execute(select(*own, *columns).where(are_these)):
            by_task[TaskKey(*row[len(own) :])].append(row)
    is_latest: dict[bool, list[int]] = {True: [], False: []}
    for of_task in by_task.values():
        latest = max(of_task, key=lambda row: (row.submitted_at, row.id))
        for row in of_task:
            is_of_latest = is_same_array(row.job_id, latest.job_id)
            if row.is_latest != is_of_latest:
                is_latest[is_of_latest].append(row.id)
    for value, ids in is_latest.items():
        if ids:
            session.execute(update(jobs).where(jobs.c.id.in_(ids)).values(is_latest=value))
