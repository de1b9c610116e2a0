"""Finds the jobs of a cluster that nothing in Airflow waits for any more."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import structlog
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.hooks.airflow_outage import outlast
from airflow_provider_gpu_cluster.jobs.identity import airflow_url
from airflow_provider_gpu_cluster.jobs.orphan import OrphanedJob
from airflow_provider_gpu_cluster.jobs.status import JobState

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.job_list import ListedJob
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker

log = structlog.get_logger(__name__)

# Their number in one request is limited by the length of its address.
_RUNS_AT_ONCE = 25
_OVER = ("failed", "skipped", "upstream_failed", "removed")
_NO_RUN = "no such run"
_NO_TASK = "no such task"
# The state that an array has whose elements are in these.
_STATES = (JobState.RUNNING, JobState.UNKNOWN, JobState.QUEUED)

_TaskKey = tuple[str, str, int]


def orphans_among(
    jobs: Sequence[ListedJob], *, conn_id: str, older_than: timedelta | None, of_unknown_runs: bool
) -> list[OrphanedJob]:
    """
    Return the jobs whose task is over; those that no task has launched are left out.

    :param jobs: the jobs that wait or run.
    :param conn_id: connection of the cluster.
    :param older_than: only jobs about which nobody has asked for that long.
    :param of_unknown_runs: also jobs whose run this Airflow does not know and that may be another Airflow's.
    """
    if getattr(task_runner, "SUPERVISOR_COMMS", None) is None:
        raise GpuClusterError(
            "orphans() asks Airflow what has become of tasks, which only a task can: call it in one, as the DAG "
            "gpu_cluster_orphans does"
        )
    of_tasks = [job for job in jobs if {"dag_id", "run_id", "task_id"} <= job["by"].keys()]
    old = [job for job in of_tasks if older_than is None or _is_unasked_for(job, older_than)]
    states = _states(old)
    found: list[OrphanedJob] = []
    unknown = 0
    for together in _by_job(old):
        first = together[0]
        state = states[_task_of(first["by"]), first["by"]["run_id"]]
        is_ours = _is_of_this_airflow(first["by"])
        if is_ours is False or (state == _NO_RUN and not is_ours):
            unknown += 1
            if not of_unknown_runs:
                continue
        why = _why(first, state)
        if why is not None:
            found.append(_orphan(together, conn_id, why))
    if unknown and not of_unknown_runs:
        log.info(
            "Jobs of runs that this Airflow does not know are left out, as they may be another Airflow's",
            jobs=unknown,
            gpu_cluster_conn_id=conn_id,
        )
    return found


def _by_job(jobs: Iterable[ListedJob]) -> list[list[ListedJob]]:
    """Return the jobs, the elements of an array together."""
    found: dict[str, list[ListedJob]] = defaultdict(list)
    for job in jobs:
        found[job.get("array", job["job_id"])].append(job)
    return list(found.values())


def _is_unasked_for(job: ListedJob, long: timedelta) -> bool:
    unasked_s = job.get("unasked_s")
    return unasked_s is not None and unasked_s >= long.total_seconds()


# -- what Airflow knows


def _task_of(by: Asker) -> _TaskKey:
    map_index = by.get("map_index")
    return by["dag_id"], by["task_id"], -1 if map_index is None else map_index


def _states(jobs: Iterable[ListedJob]) -> dict[tuple[_TaskKey, str], str]:
    """Return the state of each task instance that has launched one of these jobs."""
    runs: dict[_TaskKey, dict[str, None]] = defaultdict(dict)
    for job in jobs:
        runs[_task_of(job["by"])][job["by"]["run_id"]] = None
    found = {}
    for task, run_ids in runs.items():
        names = list(run_ids)
        for start in range(0, len(names), _RUNS_AT_ONCE):
            for run_id, state in _states_in(task, names[start : start + _RUNS_AT_ONCE]).items():
                found[task, run_id] = state
    return found


def _states_in(task: _TaskKey, run_ids: list[str]) -> dict[str, str]:
    dag_id, task_id, map_index = task
    told: dict[str, Any] = outlast(
        lambda: RuntimeTaskInstance.get_task_states(
            dag_id=dag_id, task_ids=[task_id], run_ids=run_ids, map_index=map_index
        )
    )
    key = task_id if map_index < 0 else f"{task_id}_{map_index}"
    found = {}
    for run_id in run_ids:
        if key in told.get(run_id, {}):
            found[run_id] = str(told[run_id][key])
            if found[run_id] == "success" and _runs(dag_id, run_id, ["queued", "running"]):
                # Another task of the run may wait for the job.
                found[run_id] = "awaited"
        else:
            found[run_id] = _NO_TASK if _runs(dag_id, run_id) else _NO_RUN
    return found


def _runs(dag_id: str, run_id: str, states: list[str] | None = None) -> bool:
    """Return whether there is such a run, in one of these states."""
    return bool(outlast(lambda: RuntimeTaskInstance.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=states)))


def _is_of_this_airflow(by: Asker) -> bool | None:
    """Return whether this Airflow has asked for a job; None if that cannot be told."""
    own, theirs = airflow_url(), by.get("airflow_url")
    if own is not None and theirs is not None:
        return own == theirs
    if own is None and theirs is None and by.get("airflow_host") in (socket.gethostname(), socket.getfqdn()):
        # An Airflow on one machine.
        return True
    return None


# -- what it means


def _why(job: ListedJob, state: str) -> str | None:
    """Return why nothing waits for a job any more; None if something may."""
    if "newer" in job:
        return f"its task was run anew, and has launched {job['newer']} since"
    if state in _OVER:
        return f"its task is {state}"
    return {
        "success": "its task and its run have ended",
        _NO_TASK: "its task is no longer in its run",
        _NO_RUN: "Airflow knows no such run",
    }.get(state)


def _orphan(together: list[ListedJob], conn_id: str, why: str) -> OrphanedJob:
    first = together[0]
    states = [JobState(job["state"]) for job in together]
    times = [time for job in together if (time := job.get("started_at") or job.get("submitted_at"))]
    unasked = [job["unasked_s"] for job in together if "unasked_s" in job]
    dag_id, task_id, map_index = _task_of(first["by"])
    return OrphanedJob(
        job_id=first.get("array", first["job_id"]),
        gpu_cluster_conn_id=conn_id,
        state=next(state for state in _STATES if state in states),
        gpus=sum(job["gpus"] for job in together),
        why=why,
        dag_id=dag_id,
        run_id=first["by"]["run_id"],
        task_id=task_id,
        map_index=map_index,
        try_number=first["by"].get("try_number"),
        since=_time(min(times)) if times else None,
        unasked=timedelta(seconds=min(unasked)) if unasked else None,
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(timezone.utc)
    except ValueError:
        return None
