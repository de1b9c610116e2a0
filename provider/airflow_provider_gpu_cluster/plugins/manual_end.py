"""
Does what Airflow does not when a user ends a task or a DAG run in Airflow's UI or REST API.

A task that runs on a worker, or whose trigger runs, is told to stop and cancels its job. But a task that was deferred a
moment ago has no trigger yet, and has none as long as the triggerer is down, so it is not told. Therefore the API
server, after each request that may mark tasks, looks for the tasks that the request has ended; and before each request
that deletes a DAG, a run or a task, for the jobs that would be forgotten. Cancelling a job twice, or a job that has
ended, does no harm. A run that a user marks failed also ends as failed.

(Airflow has listeners for this, but no task may end from its trigger if a plugin has listeners.)
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.plugins.end_request import marks_tasks, part_to_delete, runs_marked_failed
from airflow_provider_gpu_cluster.plugins.marked_tasks import PartOfDag, abandoned, fail_what_was_skipped, to_be_deleted

log = logging.getLogger(__name__)

# A request that marks tasks is small; of a larger one nothing is read.
_MOST_BODY_BYTES = 1 << 20

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
        method, path = (scope["method"], scope["path"]) if scope["type"] == "http" else ("", "")
        if marks_tasks(method, path):
            await self._mark(scope, receive, send)
        elif (part := part_to_delete(method, path)) is not None:
            await self._delete(part, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _mark(self, scope: Any, receive: Any, send: Any) -> None:
        body = bytearray()

        async def receive_and_note() -> Any:
            message = await receive()
            if len(body) <= _MOST_BODY_BYTES:
                body.extend(message.get("body") or b"")
            return message

        began = datetime.now(timezone.utc)
        if await self._is_accepted(scope, receive_and_note, send):
            runs = runs_marked_failed(scope["path"], bytes(body)) if len(body) <= _MOST_BODY_BYTES else []
            _pool.submit(end_what_was_marked, runs, began, await user_of(scope))

    async def _delete(self, part: PartOfDag, scope: Any, receive: Any, send: Any) -> None:
        jobs = await asyncio.to_thread(_jobs_to_be_forgotten, part)
        if await self._is_accepted(scope, receive, send) and jobs:
            _pool.submit(cancel_all, jobs, "Airflow, as a user deleted its task", await user_of(scope))

    async def _is_accepted(self, scope: Any, receive: Any, send: Any) -> bool:
        """Answer a request, and return whether the answer is a success."""
        statuses: list[int] = []

        async def send_and_note(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        await self._app(scope, receive, send_and_note)
        return statuses in ([200], [204])


async def user_of(scope: Any) -> str | None:
    """Return who has made a request that Airflow has accepted; None if that cannot be told."""
    try:
        # Airflow loads plugins in all of its processes; only the API server pays for this.
        from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
        from starlette.requests import Request

        request = Request(scope)
        user = await get_user(request, None, await bearer_scheme(request))
        return str(user.get_name())
    except Exception as error:
        log.debug("it cannot be told who has made a request: %r", error)
        return None


def end_what_was_marked(runs: Iterable[PartOfDag], since: datetime, user: str | None = None) -> None:
    """
    Make runs end as failed that were marked failed since then, and cancel the jobs of tasks that were marked.

    :param user: who has marked them.
    """
    for run in runs:
        try:
            fail_what_was_skipped(run, since)
        except Exception:
            log.exception("could not make run %s of %s, which was marked failed, end as failed", run.run_id, run.dag_id)
    end_abandoned_jobs(since, user)


def end_abandoned_jobs(since: datetime, user: str | None = None) -> None:
    """Cancel the jobs of tasks that ended since then and asked for cancellation."""
    try:
        jobs = abandoned(since)
    except Exception:
        log.exception("could not look for jobs of tasks that were marked")
        return
    cancel_all(jobs, "Airflow, as a user ended its task", user)


def _jobs_to_be_forgotten(part: PartOfDag) -> list[tuple[str, str]]:
    try:
        return to_be_deleted(part)
    except Exception:
        log.exception("could not look for jobs of %s, which is being deleted", part)
        return []


def cancel_all(jobs: Iterable[tuple[str, str]], requested_by: str, user: str | None = None) -> None:
    """
    Cancel jobs, given as connection and job id. Nothing that goes wrong with one cluster matters to others.

    :param user: who is logged in and has wanted that.
    """
    by_connection = defaultdict(list)
    for conn_id, job_id in jobs:
        by_connection[conn_id].append(job_id)
    for conn_id, job_ids in by_connection.items():
        _cancel(conn_id, job_ids, requested_by, user)


def _cancel(conn_id: str, job_ids: list[str], requested_by: str, user: str | None) -> None:
    """Cancel jobs of one cluster. If this machine cannot reach the cluster, only the triggerer can cancel them."""
    # Airflow loads plugins in all of its processes; only the API server pays for this.
    from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of

    try:
        with cluster_of(conn_id, user) as cluster:
            cluster.cancel(job_ids, requested_by=requested_by)
    except Exception as error:
        told = words_of(error)
        log.warning("could not cancel %s, whose tasks were ended by hand: %s", ", ".join(job_ids), told)
