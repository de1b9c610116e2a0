"""The GPU jobs of a DAG run that has ended, and their end."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.operators.gpu_job import (
    CancelGpuJobOperator,
    CollectGpuJobOperator,
    StageGpuJobOperator,
    SubmitGpuJobOperator,
)
from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.tasks.job_notes import (
    HANDLE_XCOM_KEYS,
    TEARDOWN_XCOM_KEY,
    StoredXCom,
    jobs_in,
    read_note,
)
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY

if TYPE_CHECKING:
    from airflow.sdk import DAG
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_gpu_cluster.jobs.status import JobStatus

    Task = BaseOperator | MappedOperator

log = logging.getLogger(__name__)

# The DAG processor ends a callback that takes longer than [dag_processor] dag_file_processor_timeout, 50 s by default.
LIMIT_S = 30.0
# How long a submit task may take to notice that it has been ended; until then it may launch the job.
LAUNCH_MAY_FOLLOW_FOR_S = 10.0
_PAUSE_S = 2.0
_CLUSTERS_AT_ONCE = 8

# A task in one of these states had a process, or a trigger, that saw to the job.
_SAW_TO_ITS_JOB = ("success", "failed")

Job = tuple[str, str]


def jobs_of_run(dag: DAG, run_id: str) -> list[Job]:
    """Return connection and job id of all jobs that the tasks of a run have launched."""
    tasks = dict.fromkeys(task.task_id for task in dag.tasks if _is(task, SubmitGpuJobOperator, StageGpuJobOperator))
    # Others may launch jobs with the hook; what waits for a job, or collects or cancels it, knows by whom.
    for task in dag.tasks:
        if _is(task, GpuJobSensor, CollectGpuJobOperator, CancelGpuJobOperator):
            tasks.update(dict.fromkeys(_tasks_of_its_job(task)))
    return _distinct(job for task_id in tasks for key in HANDLE_XCOM_KEYS for job in _noted(dag, run_id, task_id, key))


def forgotten_jobs(dag: DAG, run_id: str) -> list[Job]:
    """Return the jobs that should have ended with their task or in a teardown, and did not, as Airflow ended these."""
    submits = [task for task in dag.tasks if _is(task, SubmitGpuJobOperator, StageGpuJobOperator)]
    cancels = [task for task in dag.tasks if _is(task, CancelGpuJobOperator)]
    states = _states(dag, run_id, [*submits, *cancels])
    forgotten: list[Job] = []
    for task in submits:
        if states[task.task_id].difference(_SAW_TO_ITS_JOB):
            forgotten += _noted(dag, run_id, task.task_id, KILL_XCOM_KEY)
        teardowns = task.downstream_task_ids.intersection(cancel.task_id for cancel in cancels)
        if any(states[task_id].difference(_SAW_TO_ITS_JOB) for task_id in teardowns):
            forgotten += _noted(dag, run_id, task.task_id, TEARDOWN_XCOM_KEY)
    return _distinct(forgotten)


def cancel_in_time(jobs: Iterable[Job], context: Mapping[str, Any]) -> None:
    """Cancel jobs, all clusters at once, within :data:`LIMIT_S`, and log what becomes of them."""
    by_connection = defaultdict(list)
    for conn_id, job_id in jobs:
        by_connection[conn_id].append(job_id)
    began = time.monotonic()
    requested_by = f"Airflow, as run {context['run_id']} of {context['dag'].dag_id} ended: {context.get('reason')}"

    def cancel(of_one: tuple[str, list[str]]) -> None:
        conn_id, job_ids = of_one
        try:
            _cancel(conn_id, job_ids, requested_by, began)
        except Exception as error:
            told = words_of(error)
            log.error("could not cancel %s through connection %s: %s", ", ".join(job_ids), conn_id, told)

    # A cluster that does not answer must not use up the time of the others.
    with ThreadPoolExecutor(_CLUSTERS_AT_ONCE) as pool:
        list(pool.map(cancel, by_connection.items()))


def _cancel(conn_id: str, job_ids: list[str], requested_by: str, began: float) -> None:
    with cluster_of(conn_id) as cluster:
        left_s = max(began + LIMIT_S - time.monotonic(), 1.0)
        # A cluster that accepts the call and then stays silent must not block the DAG processor for longer than this.
        limit = threading.Timer(left_s, cluster.interrupt)
        limit.daemon = True
        limit.start()
        try:
            retrying = cluster.retrying_for(left_s)
            while True:
                ends = retrying.cancel(job_ids, requested_by=requested_by)
                if time.monotonic() > began + LAUNCH_MAY_FOLLOW_FOR_S or not any(map(_is_not_launched, ends)):
                    break
                time.sleep(_PAUSE_S)
        finally:
            limit.cancel()
        for end in ends:
            if not _is_not_launched(end):
                log.warning("%s on %s: GPU job %s is %s", requested_by, cluster.settings.name, end.job_id, end.state)


def _is_not_launched(status: JobStatus) -> bool:
    return status.attempt == 0 and status.state in (JobState.UNKNOWN, JobState.LOST)


def _is(task: Task, *kinds: type[BaseOperator]) -> bool:
    kind = type(task) if isinstance(task, BaseOperator) else task.operator_class
    return isinstance(kind, type) and issubclass(kind, kinds)


def _tasks_of_its_job(task: Task) -> Iterator[str]:
    arguments: Any = vars(task) if isinstance(task, BaseOperator) else task.partial_kwargs
    job = arguments.get("job")
    if isinstance(job, PlainXComArg):
        yield job.operator.task_id


def _noted(dag: DAG, run_id: str, task_id: str, key: str) -> list[Job]:
    """Return the jobs under a key of a task's XComs, of all its map indexes; what cannot be read is left out."""
    try:
        stored = StoredXCom.get_all(key=key, dag_id=dag.dag_id, task_id=task_id, run_id=run_id) or []
    except Exception as error:
        log.warning("could not read XCom %s of task %s: %s", key, task_id, words_of(error))
        return []
    return [job for value in stored for job in jobs_in(read_note(value))]


def _states(dag: DAG, run_id: str, tasks: list[Task]) -> dict[str, set[str | None]]:
    """Return the states of the task instances of each task; none, if a task has never had one."""
    found: dict[str, set[str | None]] = {}
    for task in tasks:
        states = RuntimeTaskInstance.get_task_states(dag_id=dag.dag_id, task_ids=[task.task_id], run_ids=[run_id]).get(
            run_id, {}
        )
        found[task.task_id] = set(states.values())
    return found


def _distinct(jobs: Iterable[Job]) -> list[Job]:
    return list(dict.fromkeys(jobs))
