"""What the operators share: how they find their cluster, job and folder."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import JobHandle, checked_job_id
from airflow_provider_gpu_cluster.jobs.parameter_checks import connection_ids
from airflow_provider_gpu_cluster.pools.following import followed
from airflow_provider_gpu_cluster.tasks.job_notes import (
    HANDLE_XCOM_KEY,
    LAUNCH_XCOM_KEY,
    TEARDOWN_XCOM_KEY,
    needs_a_note,
    push_note,
)
from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY, GpuJobLink, job_url

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_gpu_cluster.jobs.status import JobStatus

# What a DAG author gives as job: the output of a task that launched or staged one, or a template of it.
JobArgument: TypeAlias = "dict[str, Any] | XComArg | str"


class FilledFields:
    """
    The ``template_fields`` of an operator with many of them: for an instance, only those that are not None.

    Each field takes a millisecond of a worker's time, and appears in Airflow's UI.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, operator: BaseOperator | None, owner: type[BaseOperator]) -> Sequence[str]:
        if operator is None:
            return self._names
        return tuple(name for name in self._names if getattr(operator, name, None) is not None)


def dag_folder(operator: BaseOperator) -> str:
    """Return the folder of the DAG file, where relative sources start from."""
    # A worker reads a DAG from its bundle, and fileloc is the path in it; mapped tasks and groups share the DAG.
    dag = operator.get_dag()
    return os.path.dirname(dag.fileloc) if dag else os.getcwd()


def handle_of(job: Any) -> JobHandle:
    """
    Read the handle that a task receives as ``job``.

    :raises InvalidJobError: it is not a job handle, or its job id is none.
    """
    if isinstance(job, JobHandle):
        return job
    if isinstance(job, str):
        job = _from_template(job)
    try:
        handle = JobHandle.from_json(dict(job) if isinstance(job, Mapping) else job)
    except ValueError as error:
        raise InvalidJobError(str(error)) from None
    checked_job_id(handle.job_id)
    return handle


def is_missing(job: Any) -> bool:
    """Return whether there is no job, because the upstream task launched none or was skipped."""
    return job is None or (isinstance(job, str) and job.strip() in ("", "None", "null"))


def hook_for(handle: JobHandle, gpu_cluster_conn_id: str | Sequence[str] | None) -> GpuClusterHook:
    """Return the hook of a job's cluster, over the connection the job was launched with or over another one."""
    return GpuClusterHook(other_conn_id(handle, gpu_cluster_conn_id) or handle.gpu_cluster_conn_id)


def other_conn_id(handle: JobHandle, gpu_cluster_conn_id: str | Sequence[str] | None) -> str | None:
    """
    Return the connection to use instead of the one that a handle names; None for that one.

    :param gpu_cluster_conn_id: what a user has given. Of a pool, the handle says which cluster it is.
    """
    given = connection_ids(gpu_cluster_conn_id)
    if not isinstance(given, str) or given == handle.gpu_cluster_conn_id:
        return None
    # Imported late, because it reads connections, and says nothing to a file of DAGs.
    from airflow_provider_gpu_cluster.hooks.pools import is_pool

    return None if is_pool(given) else given


def pool_with(handle: JobHandle, gpu_cluster_conn_id: str | Sequence[str] | None) -> GpuClusterHook | None:
    """
    Return the hook of the pool that a user has given, if the cluster of a handle is in it; None if not.

    The elements of an array may be on several of its clusters, which its handle knows.
    """
    conn_ids = connection_ids(gpu_cluster_conn_id)
    if conn_ids is None or conn_ids == handle.gpu_cluster_conn_id or handle.parts:
        return None
    hook = GpuClusterHook(conn_ids)
    return hook if hook.pool is not None and handle.gpu_cluster_conn_id in hook.pool.conn_ids else None


@contextlib.contextmanager
def at_its_cluster(
    handle: JobHandle, gpu_cluster_conn_id: str | Sequence[str] | None
) -> Iterator[tuple[GpuClusterHook, JobHandle, JobStatus]]:
    """
    Open the cluster where a job is, which may have been moved since its handle was made.

    :param gpu_cluster_conn_id: another connection to the cluster of the handle; None for the one in it.
    :return: the hook of the cluster, the job's handle there, and its status.
    """
    with contextlib.ExitStack() as hooks:
        if handle.parts:
            hook = hooks.enter_context(hook_for(handle, gpu_cluster_conn_id))
            # The hook finds each part where it is.
            yield hook, handle, hook.status(handle)
            return
        opened = {handle.gpu_cluster_conn_id: hooks.enter_context(hook_for(handle, gpu_cluster_conn_id))}

        def hook_of(conn_id: str) -> GpuClusterHook:
            if conn_id not in opened:
                opened[conn_id] = hooks.enter_context(GpuClusterHook(conn_id))
            return opened[conn_id]

        handle, status = followed(handle, hook_of)
        yield opened[handle.gpu_cluster_conn_id], handle, status


def handle_key(operator: BaseOperator) -> str:
    """Return the XCom key of a job's handle: that of the return value, unless the task pushes no return value."""
    return BaseXCom.XCOM_RETURN_KEY if operator.do_xcom_push else HANDLE_XCOM_KEY


def published(
    ti: Any,
    handle: JobHandle,
    key: str,
    *,
    ends_with_task: bool = False,
    ends_with_teardown: bool = False,
    launch: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return the XComs by which others find a task's job: its handle, and the link to its page.

    :param key: key of the handle, from :func:`handle_key`.
    :param ends_with_task: whether to cancel the job when a user ends the task.
    :param ends_with_teardown: whether a teardown cancels the job.
    :param launch: of the task that has launched it: the note about that, for the table of all jobs.
    """
    url = job_url(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
    value = handle.to_json()
    values = {GpuJobLink().xcom_key: url, key: value}
    if needs_a_note(key):
        values[HANDLE_XCOM_KEY] = value
    if ends_with_task:
        values[KILL_XCOM_KEY] = value
    if ends_with_teardown:
        values[TEARDOWN_XCOM_KEY] = value
    if launch is not None:
        values[LAUNCH_XCOM_KEY] = launch
    return values


def result_of(handle: JobHandle, status: JobStatus) -> dict[str, Any]:
    """
    Return what a task that has waited for its job returns: the handle, what the job has used, how long its parts took,
    and, if it has gone on by itself, how.
    """
    return {**handle.to_json(), **status.used(), **status.history()}


def publish(
    operator: BaseOperator,
    context: Context,
    handle: JobHandle,
    *,
    ends_with_task: bool = False,
    ends_with_teardown: bool = False,
    launch: dict[str, Any] | None = None,
) -> None:
    """Push these XComs now, so that the link works while the task runs."""
    ti = context["ti"]
    values = published(
        ti,
        handle,
        handle_key(operator),
        ends_with_task=ends_with_task,
        ends_with_teardown=ends_with_teardown,
        launch=launch,
    )
    for key, value in values.items():
        push_note(ti, key, value)


def publish_seen(context: Context, handle: JobHandle) -> None:
    """Push the XComs by which the UI shows a job that a task has not launched, but sees to."""
    ti = context["ti"]
    url = job_url(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
    push_note(ti, GpuJobLink().xcom_key, url)
    push_note(ti, HANDLE_XCOM_KEY, handle.to_json())


def is_cancelled_by_teardown(task: BaseOperator) -> bool:
    """Return whether a teardown cancels the job of a task, whatever becomes of the tasks between the two."""
    followers = task.downstream_list if task.get_dag() is not None else ()
    return any(follower.is_teardown and follower.task_type == "CancelGpuJobOperator" for follower in followers)


def seconds(duration: float | timedelta) -> float:
    """Return a duration in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _from_template(text: str) -> Any:
    """Read a handle from the text of a dict, which a template makes of it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
