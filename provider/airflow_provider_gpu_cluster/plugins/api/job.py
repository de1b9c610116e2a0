"""One job: what Airflow and its cluster know of it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from airflow_provider_gpu_cluster.plugins.api.access import may_read_log
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, job_of
from airflow_provider_gpu_cluster.plugins.job_lookup import JobLookup
from airflow_provider_gpu_cluster.plugins.job_view import job_view

WAIT_S = 10.0
router = APIRouter()
lookup = JobLookup()


@router.get(JOB_PATH, dependencies=[may_read_log])
async def job(address: Address) -> dict[str, Any]:
    """Return what is known of a job."""
    handle = await run_in_threadpool(job_of, address)
    answer = await lookup.look(handle, wait_s=WAIT_S)
    return job_view(handle, answer, datetime.now(timezone.utc))
