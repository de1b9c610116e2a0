"""The task instance that a message is about."""

from __future__ import annotations

from typing import Any

from airflow_provider_gpu_cluster.messages.message import JobTask
from airflow_provider_gpu_cluster.tasks.links import full_job_url, full_task_url


def told_task(ti: Any, *, will_retry: bool = False, has_job: bool = True) -> JobTask | None:
    """
    Return what a message says of a task instance.

    :param ti: the task instance, or anything with its names; None if not known.
    :param will_retry: Airflow tries it again.
    :param has_job: it has launched a job, or waits for one, so that there is a page of it.
    """
    if ti is None or not getattr(ti, "dag_id", None):
        return None
    where = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
    max_tries = getattr(ti, "max_tries", None)
    return JobTask(
        **where,
        try_number=getattr(ti, "try_number", None),
        tries=max_tries + 1 if isinstance(max_tries, int) else None,
        will_retry=will_retry,
        job_url=full_job_url(**where) if has_job else "",
        task_url=full_task_url(**where),
    )
