"""All routes below ``/gpu-cluster/api``."""

from __future__ import annotations

from fastapi import APIRouter

from airflow_provider_gpu_cluster.plugins.api import clusters, elements, job, outputs

router = APIRouter(prefix="/api")
router.include_router(job.router)
router.include_router(outputs.router)
router.include_router(elements.router)
router.include_router(clusters.router)
