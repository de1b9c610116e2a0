"""Where the job of a task is shown in Airflow's UI, and the extra link that leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

from airflow_provider_gpu_cluster.tasks.paths import job_path, task_path

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

# XCom of a task whose job must end when a user ends the task: the job's `gpu_cluster_conn_id` and `job_id`.
KILL_XCOM_KEY = "gpu_job_cancel_on_kill"


def job_url(*, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """
    Return the address of the tab that shows a task instance's job.

    It is a path, not a full address, so that it works with any host name of the API server. The tab reads the
    job's handle from the task instance's XCom, so that a user who may not see the task instance does not see the
    job.
    """
    return urlsplit(_base_url()).path.rstrip("/") + job_path(dag_id, run_id, task_id, map_index)


def full_job_url(*, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return the full address of that tab, for a mail; empty if ``[api] base_url`` does not say where Airflow is."""
    return f"{_base_url()}{job_path(dag_id, run_id, task_id, map_index)}" if _base_url() else ""


def full_task_url(*, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return the full address of a task instance in Airflow's UI; empty likewise."""
    return f"{_base_url()}{task_path(dag_id, run_id, task_id, map_index)}" if _base_url() else ""


def tell_page(ti: Any, log: Any, job_id: str) -> None:
    """Log where the job of a task is shown, which Airflow's log page makes a link."""
    url = full_job_url(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
    if url:
        log.info(f"GPU job in Airflow: {url}", job_id=job_id)


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
