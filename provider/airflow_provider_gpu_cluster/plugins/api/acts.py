"""What a user can do to a job here: cancel it, and have it save a checkpoint. The job's audit trail says who did it."""

from __future__ import annotations

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_gpu_cluster.gpu_run.protocol.interruption import AS_CHECKPOINT
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.api.access import may_end_job
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, job_of
from airflow_provider_gpu_cluster.plugins.api.errors import RESPONSES
from airflow_provider_gpu_cluster.plugins.api.same_site import OfThisSite
from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of
from airflow_provider_gpu_cluster.plugins.job_looks import looks
from airflow_provider_gpu_cluster.plugins.shown import shown

_LIMIT_S = 30.0
_THROUGH = "the page of the job in Airflow, or its REST API"
router = APIRouter(
    tags=["job"],
    dependencies=[may_end_job, OfThisSite],
    responses={status: RESPONSES[status] for status in (401, 403, 404, 409, 503)},
)


class Done(BaseModel):
    """What was done."""

    job_id: str
    state: str | None = Field(description="the job's state after that, if it was looked at")
    sentence: str


class Nothing(BaseModel):
    """No arguments."""

    model_config = ConfigDict(extra="forbid")


class Checkpoint(BaseModel):
    """How to send the signal."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="unique to this signal, which is sent once, however often the request is repeated",
    )


@router.post(f"{JOB_PATH}/cancel")
async def cancel(address: Address, user: GetUserDep, nothing: Nothing | None = None) -> Done:
    """
    Cancel a job: one that waits never starts, and one that runs is told to stop and then ended.

    A repeated request does no harm. A job that has ended is left as it is, and the answer is 409. Of an array, all
    elements are cancelled, or the one that is named.
    """
    handle = await run_in_threadpool(job_of, address)
    state = await run_in_threadpool(_cancel, handle, user.get_name())
    looks.forget(handle)
    words = "The job is cancelled." if state == "CANCELLED" else "The job is being cancelled."
    return Done(job_id=handle.job_id, state=state, sentence=words)


@router.post(f"{JOB_PATH}/checkpoint")
async def checkpoint(address: Address, user: GetUserDep, how: Checkpoint | None = None) -> Done:
    """
    Send a running job the signal by which it is warned before it is stopped, so that it saves a checkpoint and goes on.

    Nothing is sent to a program that does not catch the signal, since it would end by it. A job that does not run is
    answered with 409; of an array, name an element.
    """
    handle = await run_in_threadpool(job_of, address)
    said = await run_in_threadpool(_checkpoint, handle, user.get_name(), how.id if how else None)
    looks.forget(handle)
    return Done(job_id=handle.job_id, state=None, sentence=shown(f"{said[:1].upper()}{said[1:]}."))


def _cancel(handle: JobHandle, user: str) -> str:
    with cluster_of(handle.gpu_cluster_conn_id, user, limit_s=_LIMIT_S) as cluster:
        once = cluster.retrying_for(0)
        (before,) = once.statuses([handle.job_id])
        if before.final:
            raise HTTPException(409, f"Job {handle.job_id} has ended already, as {before.state}.")
        (after,) = once.cancel([handle.job_id], requested_by=_THROUGH)
        return str(after.state)


def _checkpoint(handle: JobHandle, user: str, name: str | None) -> str:
    with cluster_of(handle.gpu_cluster_conn_id, user, limit_s=_LIMIT_S) as cluster:
        once = cluster.retrying_for(0)
        return once.interrupt_job(handle.job_id, kind=AS_CHECKPOINT, requested_by=_THROUGH, name=name)
