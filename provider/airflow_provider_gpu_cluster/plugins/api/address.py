"""
Which job a request is about: that of a task instance, or an element of it.

The job is the one that the task instance has left in Airflow, or that the table of all jobs has of it, so that a user
cannot make the API server connect to a cluster, or show a job, of their own choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import Depends, HTTPException, Path, Query
from sqlalchemy import select

from airflow_provider_gpu_cluster.gpu_run.protocol import job_ids
from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.job_table.task_jobs import handle_in_table
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.marked_tasks import ENDED
from airflow_provider_gpu_cluster.plugins.no_job import LOOKS_AGAIN, why_no_job
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY
from airflow_provider_gpu_cluster.tasks.job_notes import HANDLE_XCOM_KEYS, read_note

UNREADABLE = "?"
JOB_PATH = "/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/job"
"""Path of a job's routes, below ``/gpu-cluster/api``, in the form of Airflow's own."""


@dataclass(frozen=True)
class JobAddress:
    """
    The job that is asked for.

    :param element: index in the array that the task has launched.
    :param job_id: an earlier job of the task instance, from before it was cleared; its latest by default.
    :param conn_id: a cluster where the job was before, by its connection; the one where it is by default.
    """

    dag_id: Annotated[str, Path(min_length=1)]
    run_id: Annotated[str, Path(min_length=1)]
    task_id: Annotated[str, Path(min_length=1)]
    map_index: Annotated[int, Query(ge=-1)] = -1
    element: Annotated[int | None, Query(ge=0, description="index in the array that the task launched")] = None
    job_id: Annotated[str | None, Query(description="an earlier job of the same task instance")] = None
    conn_id: Annotated[
        str | None, Query(description="a cluster where the job was before, which has the logs of its attempts there")
    ] = None

    @property
    def where(self) -> dict[str, Any]:
        """The columns of a task instance."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": self.map_index,
        }


Address = Annotated[JobAddress, Depends()]


def job_of(address: JobAddress) -> JobHandle:
    """
    Return the job of that address. Blocks on Airflow's database.

    :raises HTTPException: 404: there is no such task instance, or it has not launched a job (yet).
    """
    columns = (TaskInstance.state, TaskInstance.start_date)
    with create_session() as session:
        found = session.execute(select(*columns).filter_by(**address.where)).first()
        stored = [_stored(session, key, address.where) for key in HANDLE_XCOM_KEYS]
    handle = next(filter(None, map(_handle_in, stored)), None)
    if handle is not None and handle.parts and (address.job_id is not None or address.element is None):
        handle = _part(handle, address.job_id)
    if address.job_id is not None and (handle is None or handle.job_id != address.job_id):
        handle = _in_table(address)
        if handle is None:
            raise HTTPException(404, f"As far as this Airflow knows, this task has launched no job {address.job_id}.")
    elif handle is None:
        known = _in_table(replace(address, conn_id=None))
        if known is not None and (found is None or _is_of_this_try(known, found)):
            handle = known
    if handle is None:
        if found is None:
            raise HTTPException(404, "There is no such task instance in this Airflow.")
        odd = any(value is not None for value in stored)
        sentence = why_no_job(None if found.state is None else str(found.state), odd=odd)
        # An open page looks again or stops.
        headers = {"Refresh": "5"} if LOOKS_AGAIN in sentence else None
        raise HTTPException(404, sentence, headers=headers)
    if job_ids.fault_of(handle.job_id) is not None:
        raise HTTPException(404, "The job handle in this task's XCom does not name a job.")
    if address.conn_id not in (None, handle.gpu_cluster_conn_id):
        handle = _on_earlier_cluster(address, handle)
    if address.element is None:
        return handle
    if not isinstance(handle.array_size, int) or address.element >= handle.array_size:
        raise HTTPException(404, f"The job of this task has no element {address.element}.")
    return replace(handle, parts=()).element(address.element) if address.job_id else handle.element(address.element)


def _part(array: JobHandle, job_id: str | None) -> JobHandle:
    """
    Return one part of an array on several clusters, by its id or the first; it still names them all.

    Each has a page like any array, from which links lead to the others.
    """
    named = next((part for part in array.arrays if part.job_id == job_id), array.arrays[0])
    return replace(named, parts=array.parts)


def _on_earlier_cluster(address: JobAddress, handle: JobHandle) -> JobHandle:
    """
    Return a job as it was on the cluster that is asked for.

    :raises HTTPException: 404: as far as Airflow knows, it never was there.
    """
    assert address.conn_id is not None
    known = _in_table(replace(address, job_id=handle.job_id))
    if known is not None:
        return known
    if address.conn_id in _clusters_of_pool(address, handle.job_id):
        return replace(handle, gpu_cluster_conn_id=address.conn_id, job_dir="", engine="")
    raise HTTPException(
        404, f"As far as this Airflow knows, job {handle.job_id} was never on the cluster of {address.conn_id}."
    )


def _clusters_of_pool(address: JobAddress, job_id: str) -> tuple[str, ...]:
    """Return the clusters on which a job may have been, as its task remembers them; none if it remembers nothing."""
    query = select(TaskStateStoreModel.value).filter_by(**address.where, key=PLACEMENT_KEY)
    with create_session() as session:
        stored = session.scalar(query)
    try:
        record = PlacementRecord.from_json(json.loads(stored or ""))
    except (ValueError, RecursionError):
        return ()
    return record.members if record.job_id == job_id else ()


def _in_table(address: JobAddress) -> JobHandle | None:
    """Return the job that the table has of that task instance: never one of another task, whose id somebody gives."""
    with create_session() as session:
        return handle_in_table(session, TaskKey(**address.where), address.job_id, address.conn_id)


def _is_of_this_try(handle: JobHandle, task: Any) -> bool:
    """
    Return whether a task whose XComs are gone has launched a job in its last try.

    A task that was cleared has not launched the job that it had before.
    """
    if task.state not in ENDED or task.start_date is None or handle.submitted_at is None:
        return False
    return bool(datetime.fromisoformat(handle.submitted_at) >= task.start_date)


def _stored(session: Any, key: str, where: dict[str, Any]) -> Any:
    """Return an XCom of the task as it is stored; None if there is none. Nothing in it builds objects here."""
    try:
        return session.scalar(select(XComModel.value).filter_by(**where).where(XComModel.key == key))
    except (ValueError, RecursionError):
        return UNREADABLE


def _handle_in(value: Any) -> JobHandle | None:
    try:
        return JobHandle.from_json(read_note(value))
    except (ValueError, RecursionError):
        return None
