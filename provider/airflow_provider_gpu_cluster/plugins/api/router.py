"""All routes below ``/gpu-cluster/api``."""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_gpu_cluster.plugins.api import (
    acts,
    clusters,
    curves,
    docs_page,
    elements,
    job,
    jobs,
    log,
    outputs,
)
from airflow_provider_gpu_cluster.plugins.live import routes as live

router = APIRouter(prefix="/api")
for part in (acts, clusters, curves, docs_page, elements, job, jobs, live, log, outputs):
    router.include_router(part.router)
