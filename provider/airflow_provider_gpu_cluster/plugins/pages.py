"""Where Airflow shows our pages. All are components of one bundle, ``ui/main.js``, which names them as this does."""

from __future__ import annotations

from airflow_provider_gpu_cluster.plugins.ui_files import fingerprint
from airflow_provider_gpu_cluster.tasks.paths import JOB_ROUTE, JOBS_ROUTE, RUN_JOBS_ROUTE, URL_PREFIX

# Relative to [api] base_url, whose path a leading slash would leave.
_FILES = f"{URL_PREFIX}/ui/{fingerprint()}".lstrip("/")


def _page(name: str, destination: str, route: str) -> dict[str, str | bool]:
    return {
        "name": name,
        "bundle_url": f"{_FILES}/main.js",
        "icon": f"{_FILES}/icons/gpu.svg",
        "icon_dark_mode": f"{_FILES}/icons/gpu-dark.svg",
        "destination": destination,
        "url_route": route,
    }


PAGES = [
    {**_page("GPU jobs", "nav", JOBS_ROUTE), "nav_top_level": True},
    _page("GPU job", "task_instance", JOB_ROUTE),
    _page("GPU jobs of the run", "dag_run", RUN_JOBS_ROUTE),
]
