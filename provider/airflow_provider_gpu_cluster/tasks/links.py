"""The extra link of a task to the page of its job in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin, urlsplit

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

# XCom of a task whose job must end when a user ends the task: the job's `gpu_cluster_conn_id` and `job_id`.
KILL_XCOM_KEY = "gpu_job_cancel_on_kill"


def job_url(*, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """
    Return the address of the page that shows a task instance's job.

    It is a path, not a full address, so that it works with any host name of the API server. The page reads the
    job's handle from the task instance's XCom, so that a user who may not see the task instance does not see the
    job.
    """
    base = urlsplit(_base_url()).path.rstrip("/")
    query = urlencode(
        {
            "dag_id": dag_id,
            "run_id": run_id,
            "task_id": task_id,
            "map_index": -1 if map_index is None else map_index,
        }
    )
    return f"{base}/gpu-cluster/job?{query}"


def full_job_url(*, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return the full address of that page, for a mail; empty if ``[api] base_url`` does not say where Airflow is."""
    path = job_url(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
    return urljoin(_base_url(), path) if _base_url() else ""


def full_task_url(*, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return the full address of a task instance in Airflow's UI; empty likewise."""
    mapped = "" if map_index is None or map_index < 0 else f"/mapped/{map_index}"
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    return f"{_base_url()}/dags/{dag}/runs/{run}/tasks/{task}{mapped}" if _base_url() else ""


def _base_url() -> str:
    return str(conf.get("api", "base_url", fallback="") or "").rstrip("/")


@attrs.define()
class GpuJobLink(BaseOperatorLink):
    """Links a task to its job, while the task runs and after it has ended."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "GPU job"

    @property
    def xcom_key(self) -> str:
        """The UI reads this key and never calls :meth:`get_link`, so the link works as soon as the key is pushed."""
        return "gpu_job_link"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link, which Airflow stores when the task has ended."""
        return job_url(dag_id=ti_key.dag_id, run_id=ti_key.run_id, task_id=ti_key.task_id, map_index=ti_key.map_index)
