"""Paths in Airflow's UI and API server that are this package's own."""

from __future__ import annotations

from urllib.parse import quote

URL_PREFIX = "/gpu-cluster"
"""Below it is what the API server serves of this package."""
JOBS_ROUTE = "gpu-jobs"
JOB_ROUTE = "gpu-job"
RUN_JOBS_ROUTE = "gpu-run-jobs"
"""Names of the pages in Airflow's addresses, ``.../plugin/<name>``."""


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int | None = None) -> str:
    """Return the path of a task instance in Airflow's UI, below the path of ``[api] base_url``."""
    mapped = "" if map_index is None or map_index < 0 else f"/mapped/{map_index}"
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    return f"/dags/{dag}/runs/{run}/tasks/{task}{mapped}"


def job_path(dag_id: str, run_id: str, task_id: str, map_index: int | None = None) -> str:
    """Return the path of the tab of a task instance that shows its job."""
    return f"{task_path(dag_id, run_id, task_id, map_index)}/plugin/{JOB_ROUTE}"
