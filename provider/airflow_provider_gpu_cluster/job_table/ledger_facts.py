"""What a cluster's ledger and files tell of jobs, as facts. No IO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.job_ids import fault_of
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import MARKS
from airflow_provider_gpu_cluster.job_table.facts import AttemptFacts, JobFacts, StandingFacts, TaskKey
from airflow_provider_gpu_cluster.job_table.storable import count, json_object, moment, number, text
from airflow_provider_gpu_cluster.jobs.handle import MAX_JOB_ID_LENGTH

_STATES = (*protocol.FINAL_STATES, protocol.QUEUED, protocol.RUNNING)
# An element of an array, in ledgers that do not say so: its array's id ends as all do that are derived from a task.
_ELEMENT = re.compile(r"(?P<array>.+-[0-9a-f]{8})_(?P<index>\d{1,4})")


def facts_of_line(conn_id: str, line: Mapping[str, Any]) -> JobFacts | None:
    """Return what the line of an end tells; None if it is of no task, or makes no sense."""
    job_id, attempt, state = line.get("job_id"), count(line.get("attempt")), line.get("state")
    ended_at = moment(line.get("ended_at")) or moment(line.get("at"))
    task = _task(line)
    if not isinstance(job_id, str) or fault_of(job_id) or not attempt or state not in _STATES or ended_at is None:
        return None
    array, element = _element_of(job_id, line)
    reason = text(line.get("reason"), 50)
    used = {name: number(line.get(name)) for name in ("gpu_seconds", "used_gpu_seconds")}
    # Of an element, nothing else tells its array that it was placed elsewhere.
    why = _mark(line) if array is not None else None
    attempts = [AttemptFacts(element, attempt, state, why or reason, ended_at, **used)]
    standing = StandingFacts(
        attempt,
        state,
        reason,
        _mark(line) or text(line.get("verdict"), 100) or reason,
        None,
        text(line.get("host"), 250),
        moment(line.get("started_at")),
        ended_at,
    )
    if line.get("goes_on") is True:
        standing = StandingFacts(attempt + 1, protocol.QUEUED)
        if array is not None:
            attempts.append(AttemptFacts(element, attempt + 1, protocol.QUEUED))
    return JobFacts(
        conn_id,
        job_id if array is None else array,
        task,
        is_certain=True,
        submitted_at=_submitted_at(line, ended_at),
        known={
            "engine": text(line.get("engine"), 20),
            "user_name": text(line.get("user"), 250),
            "owner": text(line.get("owner"), 250),
            "gpus": count(line.get("gpus")),
            "gpu_type": text(line.get("gpu_type"), 250),
            # The first of its elements that has started.
            "started_at": None if array is None else moment(line.get("started_at")),
        },
        # How an array is, all of its elements tell.
        standing=standing if array is None else None,
        attempts=tuple(attempts),
        shown={"metrics": json_object(line.get("metrics")) if array is None else None},
    )


def facts_of_standing(conn_id: str, told: Mapping[str, Any]) -> JobFacts | None:
    """Return what a cluster's files tell of a job; None if that is nothing."""
    job_id, state, attempt = told.get("job_id"), told.get("state"), count(told.get("attempt"))
    if not isinstance(job_id, str):
        return None
    if state is None:
        return JobFacts(conn_id, job_id, is_gone=True)
    if state not in _STATES or attempt is None:
        return None
    return JobFacts(
        conn_id,
        job_id,
        standing=StandingFacts(
            attempt,
            state,
            text(told.get("reason"), 50),
            _mark(told) or text(told.get("kind"), 100) or text(told.get("reason"), 50),
            None,
            text(told.get("host"), 250),
            moment(told.get("started_at")),
            moment(told.get("ended_at")),
        ),
    )


def _mark(told: Mapping[str, Any]) -> str | None:
    """Return why an attempt was none of its job's: it was placed on another cluster."""
    return told["placement"] if told.get("placement") in MARKS else None


def _task(line: Mapping[str, Any]) -> TaskKey | None:
    names = [text(line.get(name), 250) for name in ("dag_id", "run_id", "task_id")]
    map_index = line.get("map_index", -1)
    if None in names or not isinstance(map_index, int) or isinstance(map_index, bool):
        return None
    dag_id, run_id, task_id = map(str, names)
    return TaskKey(dag_id, run_id, task_id, map_index if -1 <= map_index < 1 << 31 else -1)


def _element_of(job_id: str, line: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return the array that a job is an element of, and its index there."""
    array, element = line.get("array"), count(line.get("element"))
    if isinstance(array, str) and element is not None and fault_of(array) is None:
        return array, element
    found = _ELEMENT.fullmatch(job_id)
    if found is None or len(job_id) >= MAX_JOB_ID_LENGTH:
        # The beginning of a long id was cut, so that of its array is not known.
        return None, -1
    return found["array"], int(found["index"])


def _submitted_at(line: Mapping[str, Any], ended_at: datetime) -> datetime:
    """Return when the attempt was submitted; earlier programs only say how long its parts took."""
    told = moment(line.get("submitted_at"))
    if told is not None:
        return told
    took_s = sum(number(line.get(name)) or 0.0 for name in ("queued_s", "leased_s"))
    return ended_at - timedelta(seconds=took_s)
