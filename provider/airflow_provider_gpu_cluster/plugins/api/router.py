"""All routes below ``/gpu-cluster/api``."""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_gpu_cluster.plugins.api import (
    acts,
    clusters,
    curves,
    elements,
    job,
    jobs,
    log,
    outputs,
)

router = APIRouter(prefix="/api")
for part in (
    acts,
    clusters,
    curves,
    elements,
    job,
    jobs,
    log,
    outputs,
):
    router.include_router(part.router)
