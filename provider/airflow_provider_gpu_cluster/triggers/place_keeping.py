"""Keeps the place of a job of a pool for a trigger, beside the follower that shows the job's output."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.following import current_handle, next_handle
from airflow_provider_gpu_cluster.pools.keeping import PLACE_EVERY_S, JobWentElsewhere, Keeper, PlaceMember
from airflow_provider_gpu_cluster.pools.parts import standing_of
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from airflow_provider_gpu_cluster.watch.events import Failure, Outage, WatchEvent

# How often a trigger sees whether there is something to do, in seconds.
LOOK_EVERY_S = 2.0
# What is done for a place waits for clusters, in threads of its own, so that it keeps nothing else waiting.
_AT_ONCE = 32
# A cluster answers a few calls at a time: with more at once, each would wait for the others until it seems silent.
_PLACED_AT_ONCE = 8

_Result = TypeVar("_Result")
_threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gpu-job-places")
_placing_threads = ThreadPoolExecutor(_PLACED_AT_ONCE, thread_name_prefix="gpu-job-placing")


async def in_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return the result of work that blocks; if the caller is cancelled, it goes on alone."""
    return await _run(_threads, work, *arguments)


async def in_placing_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Likewise, for work that chooses a cluster and launches a job; of that, only a little is done at a time."""
    return await _run(_placing_threads, work, *arguments)


async def _run(threads: ThreadPoolExecutor, work: Callable[..., _Result], *arguments: Any) -> _Result:
    # By its context, the triggerer knows whose log is written to.
    work_in_context = partial(contextvars.copy_context().run, work, *arguments)
    return await asyncio.get_running_loop().run_in_executor(threads, work_in_context)


class Keeping(Protocol):
    """Sees where a job is while its output is followed on one cluster."""

    def take(self, event: WatchEvent, index: int | None = None) -> None:
        """Note what the watcher of the cluster has reported, for an array of which element."""
        ...

    async def until_elsewhere(self) -> Submission:
        """Return when the job is on another cluster, and how it got there."""
        ...

    async def rest(self) -> Submission | None:
        """Wait for what was begun when the job has ended; return how it got to another cluster, if it did."""
        ...


class OutputFollower(Protocol):
    """Follows a job's output."""

    async def to_the_end(self) -> WatchEnd:
        """Follow it until the job has ended or cannot be watched."""
        ...


async def first_of(follower: OutputFollower, keeping: Keeping) -> WatchEnd | Submission:
    """
    Follow a job until it has ended, or is on another cluster.

    :raises WorkerNeeded: only a worker can go on.
    """
    following = asyncio.ensure_future(follower.to_the_end())
    leaving = asyncio.ensure_future(keeping.until_elsewhere())
    try:
        await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            return leaving.result()
        leaving.cancel()
        end = following.result()
        return end if end.error is not None else await keeping.rest() or end
    finally:
        following.cancel()
        leaving.cancel()
        await asyncio.gather(following, leaving, return_exceptions=True)


class Trail:
    """
    Follows the job of a handle that somebody else launched, and perhaps has moved since.

    :param handle: where it is as far as is known.
    """

    def __init__(self, handle: JobHandle) -> None:
        self._handle = handle
        self._moved: asyncio.Future[JobStatus] = asyncio.get_running_loop().create_future()

    def take(self, event: WatchEvent, index: int | None = None) -> None:
        """
        Note what the watcher of the cluster has reported.

        :param index: of the element that it is about, for an array.
        """
        if not isinstance(event, JobStatus) or self._moved.done():
            return
        is_elsewhere = event.moved_to not in (None, self._handle.gpu_cluster_conn_id)
        if is_elsewhere or (index is not None and event.is_elsewhere):
            self._moved.set_result(event)

    async def until_elsewhere(self) -> Submission:
        """Return when the cluster says that another one has the job."""
        status = await self._moved
        while (handle := await in_thread(self._now, status)) == self._handle:
            # It is on its way.
            await asyncio.sleep(PLACE_EVERY_S)
        return Submission(handle, status, created=False)

    def _now(self, status: JobStatus) -> JobHandle:
        if self._handle.array_size is None:
            return next_handle(self._handle, status, GpuClusterHook) or self._handle
        # An element does not know where its array went.
        with GpuClusterHook(self._handle.gpu_cluster_conn_id) as hook:
            try:
                return current_handle(self._handle, hook.cluster_of)
            except GpuClusterConnectionError:
                return self._handle

    async def rest(self) -> Submission | None:
        """Return None: nothing is done here for the job."""
        return None


class PlaceKeeping:
    """
    Works in the event loop of a trigger.

    :param keeper: keeps the place.
    :param member: the cluster on which the job is now.
    :param handle: the job there.
    """

    def __init__(self, keeper: Keeper, member: PlaceMember, handle: JobHandle) -> None:
        self._keeper = keeper
        self._member = member
        self._handle = handle
        self._statuses: dict[int | None, JobStatus] = {}
        self._is_out = False
        self._news = asyncio.Event()
        self._work: asyncio.Future[None] | None = None

    def take(self, event: WatchEvent, index: int | None = None) -> None:
        """
        Note what the watcher of the cluster has reported.

        :param index: of the element that it is about, for an array.
        """
        self._is_out = isinstance(event, Outage)
        if isinstance(event, JobStatus):
            self._statuses[index] = event
        if isinstance(event, (JobStatus, Outage, Failure)):
            self._news.set()

    def _status(self) -> JobStatus | None:
        """Return how the job stands, once that is known."""
        if self._handle.array_size is None or None in self._statuses:
            return self._statuses.get(None)
        if len(self._statuses) < self._handle.array_size:
            return None
        return standing_of(self._handle.job_id, list(self._statuses.values()))

    async def until_elsewhere(self) -> Submission:
        """
        Keep the place until the job is on another cluster, and return how it got there.

        :raises WorkerNeeded: only a worker can go on.
        """
        while True:
            if self._work is None:
                await self._wait_for_news()
                status, is_out = self._status(), self._is_out
                if not self._keeper.is_due(status, is_out_of_reach=is_out):
                    continue
                self._work = asyncio.ensure_future(in_thread(self._do, status, is_out))
            try:
                # What has begun goes on if the follower has ended meanwhile, see rest().
                await asyncio.shield(self._work)
            except JobWentElsewhere as went:
                return went.submission
            self._work = None

    async def _wait_for_news(self) -> None:
        # Before Python 3.12, asyncio.wait_for may swallow a cancellation when the news come, and go on.
        coming = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({coming}, timeout=LOOK_EVERY_S)
        finally:
            coming.cancel()
        self._news.clear()

    async def rest(self) -> Submission | None:
        """
        Wait for what was begun when the job has ended.

        :return: how the job got to another cluster, if it did.
        """
        if self._work is None:
            return None
        try:
            await self._work
        except JobWentElsewhere as went:
            return went.submission
        return None

    async def settled(self) -> None:
        """Wait for what was begun, whatever comes of it."""
        if self._work is not None:
            await asyncio.wait({self._work})

    def _do(self, status: JobStatus | None, is_out: bool) -> None:
        if is_out:
            self._keeper.out_of_reach()
        elif status is not None:
            self._keeper.in_contact(self._member, status)
