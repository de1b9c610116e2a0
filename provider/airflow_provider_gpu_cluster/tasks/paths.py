"""Paths in Airflow's UI and API server that are this package's own."""

from __future__ import annotations

URL_PREFIX = "/gpu-cluster"
"""Below it is what the API server serves of this package."""
JOBS_ROUTE = "gpu-jobs"
JOB_ROUTE = "gpu-job"
RUN_JOBS_ROUTE = "gpu-run-jobs"
"""Names of the pages in Airflow's addresses, ``.../plugin/<name>``."""
