"""One job: what Airflow and its cluster know of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.plugins.api.access import may_read_job
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, job_of
from airflow_provider_gpu_cluster.plugins.api.errors import RESPONSES
from airflow_provider_gpu_cluster.plugins.api.rights import rights_of
from airflow_provider_gpu_cluster.plugins.job_detail import job_detail
from airflow_provider_gpu_cluster.plugins.job_looks import looks
from airflow_provider_gpu_cluster.plugins.job_model import JobDetail
from airflow_provider_gpu_cluster.plugins.job_rows import rows_of
from airflow_provider_gpu_cluster.plugins.live.hub import hub

WAIT_S = 2.0
LONGEST_WAIT_S = 20.0
router = APIRouter(tags=["job"])

Wait = Annotated[
    float, Query(ge=0, le=LONGEST_WAIT_S, description="how long to wait for the cluster's answer, in seconds")
]


@router.get(
    JOB_PATH,
    dependencies=[may_read_job],
    response_model=JobDetail,
    responses={status: RESPONSES[status] for status in (401, 403, 404)},
)
async def job(address: Address, user: GetUserDep, wait_s: Wait = WAIT_S) -> Any:
    """
    Return what is known of a job.

    A cluster that has not answered within ``wait_s`` keeps nobody waiting: the state is UNKNOWN then, or the last known
    one, as ``as_of`` and ``error`` say. Without the right to read the DAG's task logs, what the job has printed and
    reported is left out.
    """
    handle = await run_in_threadpool(job_of, address)
    rights = await run_in_threadpool(rights_of, user, address.dag_id)
    # While a page of the job is open, its cluster tells what changes, and need not be asked.
    known = hub().known_of(handle) or await looks.look(handle, wait_s=wait_s)
    count = None
    if address.element is not None:
        count = (await run_in_threadpool(job_of, replace(address, element=None))).array_size
    else:
        row, earlier = await run_in_threadpool(rows_of, handle, TaskKey(**address.where))
        known = replace(known, row=row, earlier=earlier)
    return JSONResponse(job_detail(handle, known, rights, element=address.element, element_count=count))
