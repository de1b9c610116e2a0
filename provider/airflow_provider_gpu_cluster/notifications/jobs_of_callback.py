"""
The jobs that a callback is about.

Callbacks of tasks run in the task's process, or, if that is gone or the task has ended from a trigger, in the DAG
processor; callbacks of DAGs always run there. The DAG processor gives neither the exception nor the task's state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.messages.message import JobTask
from airflow_provider_gpu_cluster.tasks.handles import handle_of
from airflow_provider_gpu_cluster.tasks.job_notes import HANDLE_XCOM_KEYS, StoredXCom, read_note
from airflow_provider_gpu_cluster.tasks.links import full_task_url
from airflow_provider_gpu_cluster.tasks.told_task import told_task

log = logging.getLogger(__name__)

# A DAG may launch thousands, and nobody reads as many messages.
MOST_JOBS_OF_A_RUN = 20


@dataclass(frozen=True)
class FoundJob:
    """
    A job that a callback is about, or a task without one.

    :param handle: of the job; None if the task has none.
    :param error: why the task has failed, if it has, and if somebody knows.
    :param has_failed: the task has failed, or will be tried again.
    :param has_awaited: the task has succeeded, and does so only when its job has.
    """

    task: JobTask | None
    handle: JobHandle | None = None
    error: BaseException | None = None
    has_failed: bool = False
    has_awaited: bool = False

    @property
    def conn_id(self) -> str:
        """The connection of its cluster; empty without a job."""
        return self.handle.gpu_cluster_conn_id if self.handle else ""


def jobs_of_callback(context: Mapping[str, Any], notifier: object) -> Iterator[FoundJob]:
    """
    Return the job of the task, or the jobs of the DAG run, that a callback is about.

    :param notifier: the callback.
    :raises InvalidJobError: Airflow gives nothing by which a job could be found.
    """
    if "dag" not in context and "ti" not in context:
        raise InvalidJobError(
            "Airflow gives this callback neither a task nor a DAG, as with a deadline, so that no job can be found; to "
            "hear of a job that waits or runs, use notify= of its task"
        )
    # Airflow gives this to callbacks of DAGs alone.
    if "reason" in context or "ti" not in context:
        yield from _jobs_of_run(context)
    else:
        yield _job_of_task(context, notifier)


def _job_of_task(context: Mapping[str, Any], notifier: object) -> FoundJob:
    ti, task = context["ti"], context.get("task")
    error = context.get("exception")
    if error is not None and not isinstance(error, BaseException):
        error = RuntimeError(str(error))
    state = _known_state(ti) or _state_in_dag_processor(ti, task, notifier)
    own = next(_handles_of(ti.dag_id, ti.run_id, ti.task_id, ti.map_index), None)
    return FoundJob(
        # The page of a job is that of the task that has its handle.
        task=told_task(ti, will_retry=state == "up_for_retry", has_job=own is not None),
        handle=own or _handle_given(context, task),
        error=error,
        has_failed=state != "success",
        has_awaited=state == "success" and getattr(task, "wait_for_completion", True) and _answers_for_job(task),
    )


def _known_state(ti: Any) -> str:
    state = getattr(ti, "state", None)
    return str(getattr(state, "value", state) or "")


def _state_in_dag_processor(ti: Any, task: Any, notifier: object) -> str:
    """Return the state of a task of which the DAG processor calls a callback, which it does for bad ends alone."""
    is_of_retry, is_of_failure = (
        any(one is notifier for one in getattr(task, name, None) or ())
        for name in ("on_retry_callback", "on_failure_callback")
    )
    if is_of_retry and is_of_failure:
        # Airflow does not always give the former, and then it is 0.
        is_of_failure = ti.try_number > max(getattr(ti, "max_tries", 0), task.retries)
    return "failed" if is_of_failure or not is_of_retry else "up_for_retry"


def _jobs_of_run(context: Mapping[str, Any]) -> Iterator[FoundJob]:
    dag, run_id = context["dag"], context["run_id"]
    seen: set[str] = set()
    for task in dag.tasks:
        if not _answers_for_job(task):
            continue
        for handle in _handles_of(dag.dag_id, run_id, task.task_id, None):
            if handle.job_id in seen:
                continue
            if len(seen) == MOST_JOBS_OF_A_RUN:
                log.warning("Run %s of %s has further GPU jobs, about which nobody is told", run_id, dag.dag_id)
                return
            seen.add(handle.job_id)
            where = {"dag_id": dag.dag_id, "run_id": run_id, "task_id": task.task_id, "map_index": None}
            yield FoundJob(JobTask(**where, task_url=full_task_url(**where)), handle)


def _handles_of(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> Iterator[JobHandle]:
    """Return the handles in a task's XComs, of one map index or, with None, of all; what cannot be read is left out."""
    place: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    for key in HANDLE_XCOM_KEYS:
        try:
            if map_index is None:
                stored = StoredXCom.get_all(key=key, **place) or []
            else:
                stored = [StoredXCom.get_one(key=key, map_index=map_index, **place)]
        except Exception as error:
            log.warning("could not read XCom %s of task %s: %s", key, task_id, words_of(error))
            continue
        found = [handle for value in stored if (handle := _handle_in(read_note(value))) is not None]
        if found:
            yield from found
            return


def _handle_given(context: Mapping[str, Any], task: Any) -> JobHandle | None:
    """Return the handle that a task was given as ``job``, as a sensor is."""
    job: Any = getattr(task, "job", None)
    try:
        if hasattr(job, "resolve"):
            job = job.resolve(context)
        return _handle_in(job)
    except Exception as error:
        log.debug("the job of task %s is not known: %s", getattr(task, "task_id", ""), words_of(error))
        return None


def _handle_in(value: Any) -> JobHandle | None:
    try:
        return handle_of(value) if value is not None else None
    except (InvalidJobError, ValueError, RecursionError):
        return None


def _answers_for_job(task: Any) -> bool:
    """Return whether a task launches a job or waits for one, and does not merely see to one as a collect does."""
    return bool(getattr(getattr(task, "operator_class", task), "answers_for_job", False))
