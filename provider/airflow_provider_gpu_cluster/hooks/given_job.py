"""What the hook's methods take as a job: the handle that an operator left in XCom, or the job's id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_gpu_cluster.jobs.handle import JobHandle, checked_job_id

Job = Mapping[str, Any] | JobHandle | str


def handle_of(job: Job) -> JobHandle | None:
    """
    Return the handle of a job; None for a bare job id.

    :raises ValueError: it is a dict, but not a job handle.
    """
    if isinstance(job, str):
        return None
    return job if isinstance(job, JobHandle) else JobHandle.from_json(dict(job))


def job_id_of(job: Job) -> str:
    """
    Return the id of a job, from a handle or an id.

    :raises ValueError: it is a dict, but not a job handle; an :class:`.InvalidJobError` when its job id is none.
    """
    handle = handle_of(job)
    return checked_job_id(str(job) if handle is None else handle.job_id)


def conn_id_in(job: Job) -> str | None:
    """Return the connection that a handle names; None for a bare job id."""
    handle = handle_of(job)
    return None if handle is None else handle.gpu_cluster_conn_id


def spread_in(job: Job) -> JobHandle | None:
    """Return the handle of an array on several clusters; None for any other job."""
    handle = handle_of(job)
    return handle if handle is not None and handle.parts else None
