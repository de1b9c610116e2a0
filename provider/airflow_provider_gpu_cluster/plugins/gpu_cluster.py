"""The Airflow plugin that adds the page of GPU jobs, and their cancellation, to the API server."""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_provider_gpu_cluster.plugins.manual_end import ManualEnds

URL_PREFIX = "/gpu-cluster"


async def job_page(scope: Any, receive: Any, send: Any) -> None:
    """
    Serve the page of a GPU job.

    Airflow loads plugins in all of its processes. FastAPI and the database models are imported at the first
    request, so that only the API server pays for them.
    """
    from airflow_provider_gpu_cluster.plugins.job_page import app

    await app(scope, receive, send)


class GpuClusterPlugin(AirflowPlugin):
    """Mounts the page behind the operators' extra link, and cancels the jobs of tasks that users mark."""

    name = "gpu_cluster"
    fastapi_root_middlewares = [{"middleware": ManualEnds, "args": [], "kwargs": {}, "name": "Ends of GPU jobs"}]
    fastapi_apps = [{"app": job_page, "url_prefix": URL_PREFIX, "name": "GPU jobs"}]
