"""One open page of a job: it finds the job, follows it to the next one after a clear, and sees to rights and login."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import replace

from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool

from airflow_provider_gpu_cluster.gpu_run.protocol.following import LOG, PROGRESS, USAGE
from airflow_provider_gpu_cluster.job_table.facts import TaskKey
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.api.address import JobAddress, job_of
from airflow_provider_gpu_cluster.plugins.job_detail import Rights
from airflow_provider_gpu_cluster.plugins.job_rows import Rows, rows_of
from airflow_provider_gpu_cluster.plugins.live.clusters import live_cluster
from airflow_provider_gpu_cluster.plugins.live.hub import hub
from airflow_provider_gpu_cluster.plugins.live.live_job import LiveJob
from airflow_provider_gpu_cluster.plugins.live.viewer import Message, OpenPage
from airflow_provider_gpu_cluster.plugins.live.visitor import Visitor

# How often to see which job the task has, whether the user still may look, and to give a sign of life, in seconds.
FIND_EVERY_S = 4.0
CHECK_EVERY_S = 20.0
ALIVE_EVERY_S = 20.0

_finds: dict[JobAddress, tuple[float, asyncio.Task[JobHandle]]] = {}


class JobPage:
    """
    One open page of a job.

    :param rights: what its user may do.
    """

    def __init__(self, address: JobAddress, visitor: Visitor, rights: Rights) -> None:
        self.viewer = OpenPage()
        self._address = address
        self._visitor = visitor
        self._rights = rights
        self._handle: JobHandle | None = None
        self._job: LiveJob | None = None
        self._reason_none: str | None = None
        self._element_count: int | None = None
        self._rows: Rows = (None, None)
        self._follows_log = False

    def want(self, *, log: bool) -> None:
        """Tell new lines of the log, or no longer; those of progress and use are told to all who may see them."""
        self._follows_log = log
        had_log = LOG in self.viewer.wants
        self.viewer.wants = frozenset(self._wanted())
        if self._job is not None:
            self._job.wants_changed()
            if LOG in self.viewer.wants and not had_log:
                self._job.tell_log_end(self.viewer)

    def _wanted(self) -> Iterable[str]:
        if self._rights.read_log:
            yield from (PROGRESS, USAGE)
            if self._follows_log:
                yield LOG

    async def run(self) -> None:
        """Tell the viewer about the job until the page is over; the viewer is told why, unless it is cancelled."""
        try:
            with self.viewer.told_why():
                await self._run()
        finally:
            self._leave()

    async def _run(self) -> None:
        checked_at = alive_at = time.monotonic()
        self.want(log=self._follows_log)
        while not self.viewer.is_over:
            now = time.monotonic()
            if now >= checked_at + CHECK_EVERY_S:
                checked_at = now
                await self._check()
            if now >= alive_at + ALIVE_EVERY_S:
                alive_at = now
                self.viewer.tell(Message.of("alive"))
            await self._find()
            # Pages that were opened together must not all ask at the same moment for ever.
            await asyncio.sleep(FIND_EVERY_S * random.uniform(0.75, 1.25))

    async def _check(self) -> None:
        await self._visitor.check()
        rights = await self._visitor.rights(self._address.dag_id)
        if rights != self._rights:
            self._rights = rights
            self.want(log=self._follows_log)
            self._changed()

    async def _find(self) -> None:
        """Find the job of the task; after a clear it is another one."""
        try:
            handle = await _found(self._address)
        except HTTPException as error:
            if "Refresh" not in (error.headers or {}):
                raise
            # It has none yet, or none any more: a cleared task launches another.
            self._leave()
            if error.detail != self._reason_none:
                self._reason_none = str(error.detail)
                self.viewer.tell(Message.of("waiting", sentence=self._reason_none))
            return
        self._reason_none = None
        if self._address.element is not None:
            self._element_count = (await _found(replace(self._address, element=None))).array_size
        if self._handle != handle:
            self._leave()
            self._handle = handle
            if self._address.element is None:
                self._rows = await run_in_threadpool(rows_of, handle, TaskKey(**self._address.where))
            is_element = self._address.element is not None
            self._job = hub().join(handle, self.viewer, self._changed, is_element=is_element)
        cluster = live_cluster(handle.gpu_cluster_conn_id)
        if cluster.is_check_due:
            await asyncio.to_thread(cluster.check)

    def _changed(self) -> None:
        if self._job is not None and self._handle is not None:
            detail = self._job.detail(
                self._handle, self._rights, self._rows, self._address.element, self._element_count
            )
            self.viewer.tell(Message.of("job", job=detail))

    def _leave(self) -> None:
        if self._job is not None:
            hub().leave(self._job, self.viewer)
            self._job = self._handle = None


async def _found(address: JobAddress) -> JobHandle:
    """Return the job of an address; one look into the database serves all pages of it."""
    now = time.monotonic()
    loop = asyncio.get_running_loop()
    for old in [old for old, (found_at, _) in _finds.items() if now >= found_at + FIND_EVERY_S / 2]:
        del _finds[old]
    _, task = _finds.get(address, (now, None))
    if task is None or task.get_loop() is not loop:
        task = loop.create_task(run_in_threadpool(job_of, address))
        # The page that asked may be closed before the answer.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        _finds[address] = now, task
    return await asyncio.shield(task)
