"""One open list of jobs: its rows as they are in the table, each with what its cluster says now."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, TypeAlias

from airflow.api_fastapi.app import get_auth_manager
from airflow.utils.session import create_session
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select

from airflow_provider_gpu_cluster.gpu_run.protocol import FINAL_STATES, job_ids
from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.queries import rows_of
from airflow_provider_gpu_cluster.job_table.tables import jobs
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.api.access import readable_logs
from airflow_provider_gpu_cluster.plugins.api.jobs import JobRow
from airflow_provider_gpu_cluster.plugins.live.clusters import live_cluster
from airflow_provider_gpu_cluster.plugins.live.hub import hub
from airflow_provider_gpu_cluster.plugins.live.live_job import LiveJob
from airflow_provider_gpu_cluster.plugins.live.page import ALIVE_EVERY_S, CHECK_EVERY_S
from airflow_provider_gpu_cluster.plugins.live.viewer import Message, OpenPage
from airflow_provider_gpu_cluster.plugins.live.visitor import Visitor
from airflow_provider_gpu_cluster.plugins.shown import shown

MOST_JOBS = 1000
TELL_EVERY_S = 1.0
# A list in which very much changes is told so seldom that a page can keep up.
_S_PER_ROW = 0.005
_OF_STATUS = ("reason", "kind", "host", "started_at", "ended_at", "gpu_seconds")


# Connection and job id: a job that went from one cluster to another has a row for each.
_Key: TypeAlias = tuple[str, str]


class _Row:
    def __init__(self, row: dict[str, Any], handle: JobHandle, *, may_read_log: bool) -> None:
        self.row = row
        self.handle = handle
        self.may_read_log = may_read_log
        self.job: LiveJob | None = None
        self.viewer = OpenPage()

    def told(self) -> dict[str, Any]:
        """Return the row as it is now."""
        status = None if self.job is None else self.job.known.status
        row = self.row if status is None else _with_status(self.row, status)
        return row if self.may_read_log else {**row, "progress": None, "metrics": None}

    @property
    def is_over(self) -> bool:
        status = None if self.job is None else self.job.known.status
        return status is not None and status.final


class ListPage:
    """One open list of jobs."""

    def __init__(self, visitor: Visitor) -> None:
        self.viewer = OpenPage()
        self._visitor = visitor
        self._wanted: list[str] | None = None
        self._rows: dict[_Key, _Row] = {}
        self._changed: set[_Key] = set()

    def want(self, message: dict[str, Any]) -> None:
        """
        Tell the rows of these jobs from now on.

        :raises ValueError: it is no list of job ids.
        """
        wanted = message.get("jobs")
        if not isinstance(wanted, list) or len(wanted) > MOST_JOBS:
            raise ValueError("no list of jobs")
        if not all(isinstance(one, str) and job_ids.fault_of(one) is None for one in wanted):
            raise ValueError("no job id")
        self._wanted = wanted

    async def run(self) -> None:
        """Tell the viewer about the jobs until the page is over; the viewer is told why, unless it is cancelled."""
        try:
            with self.viewer.told_why():
                await self._run()
        finally:
            self._leave(list(self._rows))

    async def _run(self) -> None:
        checked_at = alive_at = time.monotonic()
        while not self.viewer.is_over:
            now = time.monotonic()
            if now >= alive_at + ALIVE_EVERY_S:
                alive_at = now
                self.viewer.tell(Message.of("alive"))
            if now >= checked_at + CHECK_EVERY_S:
                checked_at = now
                await self._visitor.check()
                # Rows that may no longer be seen are not found any more.
                self._wanted = [job_id for _, job_id in self._rows] if self._wanted is None else self._wanted
                await self._check_connections()
            if self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                await self._take(wanted)
            pause_s = self._tell()
            await asyncio.sleep(pause_s * random.uniform(0.9, 1.1))

    async def _take(self, wanted: list[str]) -> None:
        """Follow those of these jobs that may be seen and go on."""
        found = await run_in_threadpool(self._look_up, wanted)
        self._leave([key for key in self._rows if key not in found])
        for key, row in found.items():
            if key not in self._rows:
                self._rows[key] = row
                row.job = hub().join(row.handle, row.viewer, lambda key=key: self._changed.add(key))  # type: ignore[misc]
            else:
                self._rows[key].row = row.row
                self._rows[key].may_read_log = row.may_read_log

    def _look_up(self, wanted: list[str]) -> dict[_Key, _Row]:
        user = self._visitor.user
        dags = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
        with create_session() as session:
            if what_is_missing(session) is not None:
                return {}
            found = [row for row in rows_of(session, jobs.c.job_id.in_(wanted)) if row["dag_id"] in dags]
            ids = [row["id"] for row in found]
            query = select(jobs.c.id, jobs.c.job_dir).where(jobs.c.id.in_(ids))
            folders = dict(session.execute(query).tuples().all())
        with_logs = readable_logs(user)({row["dag_id"] for row in found})
        return {
            (row["conn_id"], row["job_id"]): _Row(
                JobRow.model_validate(row).model_dump(mode="json"),
                _handle_of(row, folders.get(row["id"])),
                may_read_log=row["dag_id"] in with_logs,
            )
            for row in found
            if row["state"] not in FINAL_STATES
        }

    def _tell(self) -> float:
        """Tell what has changed; return how long to wait until the next time, in seconds."""
        changed, self._changed = self._changed, set()
        rows = [self._rows[key] for key in changed if key in self._rows]
        told = [row.told() for row in rows if row.job is not None and row.job.known.status is not None]
        if told:
            self.viewer.tell(Message.of("rows", rows=shown(told)))
        self._leave([(row.handle.gpu_cluster_conn_id, row.handle.job_id) for row in rows if row.is_over])
        return max(TELL_EVERY_S, len(told) * _S_PER_ROW)

    async def _check_connections(self) -> None:
        for conn_id in {row.handle.gpu_cluster_conn_id for row in self._rows.values()}:
            cluster = live_cluster(conn_id)
            if cluster.is_check_due:
                await asyncio.to_thread(cluster.check)

    def _leave(self, keys: list[_Key]) -> None:
        for key in keys:
            row = self._rows.pop(key)
            if row.job is not None:
                hub().leave(row.job, row.viewer)


def _handle_of(row: dict[str, Any], job_dir: str | None) -> JobHandle:
    return JobHandle(
        row["job_id"],
        row["conn_id"],
        job_dir or "",
        row["engine"] or "",
        row["submitted_at"].isoformat(),
        row["gpus"] or 0,
        row["element_count"],
    )


def _with_status(row: dict[str, Any], status: JobStatus) -> dict[str, Any]:
    """Return a row with what a job's cluster says of it now."""
    if status.state is JobState.UNKNOWN:
        return row
    told = {name: value for name in _OF_STATUS if (value := getattr(status, name)) is not None}
    if status.state is not JobState(row["state"]):
        told = {"reason": None, "kind": None, "ended_at": None, **told}
    message = status.message.partition("\n")[0] or None
    new = {"state": str(status.state), "attempt": status.attempt or row["attempt"], "message": message}
    return {**row, **new, **told, "progress": status.progress or row["progress"]}
