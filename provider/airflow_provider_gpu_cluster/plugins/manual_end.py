"""
Cancels a job when a user marks its task in Airflow's UI or REST API.

A task that runs on a worker, or whose trigger runs, is told to stop and cancels its job. But a task that was deferred a
moment ago has no trigger yet, and has none as long as the triggerer is down, so it is not told. Therefore the API
server, after each request that may mark tasks, looks for the tasks that the request has ended. Cancelling a job twice,
or a job that has ended, does no harm.

(Airflow has listeners for this, but no task may end from its trigger if a plugin has listeners.)
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

log = logging.getLogger(__name__)

_ENDED = ("success", "failed", "skipped", "removed", "upstream_failed")

_pool = ThreadPoolExecutor(2, thread_name_prefix="gpu-job-end")


class ManualEnds:
    """
    ASGI middleware of Airflow's API server.

    :param app: what answers the requests.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, and then look for the tasks that it has ended."""
        # Task instances, one or many, and DAG runs are marked by PATCH.
        if scope["type"] != "http" or scope["method"] != "PATCH" or "/dagRuns" not in scope["path"]:
            await self._app(scope, receive, send)
            return
        statuses: list[int] = []

        async def send_and_note(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        began = datetime.now(timezone.utc)
        await self._app(scope, receive, send_and_note)
        if statuses == [200]:
            _pool.submit(end_abandoned_jobs, began)


def end_abandoned_jobs(since: datetime) -> None:
    """Cancel the jobs of tasks that ended since then and asked for cancellation."""
    by_connection = defaultdict(list)
    try:
        for conn_id, job_id in abandoned(since):
            by_connection[conn_id].append(job_id)
    except Exception:
        log.exception("could not look for jobs of tasks that were marked")
    for conn_id, job_ids in by_connection.items():
        _cancel(conn_id, job_ids)


def _cancel(conn_id: str, job_ids: list[str]) -> None:
    """Cancel jobs of one cluster. If this machine cannot reach the cluster, only the triggerer can cancel them."""
    # Airflow loads plugins in all of its processes; only the API server pays for this.
    from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of

    try:
        with cluster_of(conn_id) as cluster:
            cluster.cancel(job_ids, requested_by="Airflow, as a user ended its task")
    except Exception as error:
        log.warning("could not cancel %s, whose tasks were marked: %s", ", ".join(job_ids), error)


def abandoned(since: datetime) -> list[tuple[str, str]]:
    """Return connection and job of each task that ended since then and asked for its job to end with it."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import and_, select

    from airflow_provider_gpu_cluster.tasks.links import KILL_XCOM_KEY

    same_task = and_(
        *(
            getattr(XComModel, name) == getattr(TaskInstance, name)
            for name in ("dag_id", "run_id", "task_id", "map_index")
        )
    )
    query = (
        select(XComModel.value)
        .join(TaskInstance, same_task)
        .where(
            XComModel.key == KILL_XCOM_KEY,
            TaskInstance.state.in_(_ENDED),
            # This process wrote the time, unless the triggerer has updated the row since.
            TaskInstance.updated_at >= since,
        )
    )
    with create_session() as session:
        values: list[Any] = list(session.scalars(query))
    notes = [json.loads(value) if isinstance(value, str) else value for value in values]
    return [(note["gpu_cluster_conn_id"], note["job_id"]) for note in notes]
