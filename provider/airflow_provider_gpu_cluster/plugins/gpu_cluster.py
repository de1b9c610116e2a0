"""The Airflow plugin that shows GPU jobs and clusters inside Airflow, and lets users end jobs by ending their tasks."""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_provider_gpu_cluster.plugins.job_filling import FilledTable
from airflow_provider_gpu_cluster.plugins.manual_end import ManualEnds
from airflow_provider_gpu_cluster.plugins.pages import PAGES
from airflow_provider_gpu_cluster.tasks.paths import URL_PREFIX


async def api(scope: Any, receive: Any, send: Any) -> None:
    """
    Serve everything below :data:`URL_PREFIX`.

    Airflow loads plugins in all of its processes. FastAPI and the database models are imported at the first
    request, so that only the API server pays for them.
    """
    from airflow_provider_gpu_cluster.plugins.app import app

    await app(scope, receive, send)


class GpuClusterPlugin(AirflowPlugin):
    """Adds the pages and their API to Airflow, and cancels the jobs of tasks that users mark."""

    name = "gpu_cluster"
    react_apps = PAGES
    fastapi_root_middlewares = [
        {"middleware": ManualEnds, "args": [], "kwargs": {}, "name": "Ends of GPU jobs"},
        {"middleware": FilledTable, "args": [], "kwargs": {}, "name": "Table of GPU jobs"},
    ]
    fastapi_apps = [{"app": api, "url_prefix": URL_PREFIX, "name": "GPU jobs"}]
