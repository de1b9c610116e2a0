"""All routes below ``/gpu-cluster/api``."""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_gpu_cluster.plugins.api import acts, job

router = APIRouter(prefix="/api")
router.include_router(job.router)
router.include_router(acts.router)
