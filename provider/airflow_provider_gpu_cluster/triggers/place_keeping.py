"""Keeps the place of a job of a pool for a trigger, beside the follower that shows the job's output."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from airflow_provider_gpu_cluster.hooks.current_handle import next_handle
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.keeping import JobWentElsewhere, Keeper, PlaceMember
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

    def take(self, event: WatchEvent) -> None:
        """Note what the watcher of the cluster has reported."""
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

    def take(self, event: WatchEvent) -> None:
        """Note what the watcher of the cluster has reported."""
        if not isinstance(event, JobStatus) or self._moved.done():
            return
        if event.moved_to not in (None, self._handle.gpu_cluster_conn_id):
            self._moved.set_result(event)

    async def until_elsewhere(self) -> Submission:
        """Return when the cluster says that another one has the job."""
        status = await self._moved
        handle = await in_thread(next_handle, self._handle, status, GpuClusterHook)
        return Submission(handle or self._handle, status, created=False)

    async def rest(self) -> Submission | None:
        """Return None: nothing is done here for the job."""
        return None


class PlaceKeeping:
    """
    Works in the event loop of a trigger.

    :param keeper: keeps the place.
    :param member: the cluster on which the job is now.
    """

    def __init__(self, keeper: Keeper, member: PlaceMember) -> None:
        self._keeper = keeper
        self._member = member
        self._status: JobStatus | None = None
        self._is_out = False
        self._news = asyncio.Event()
        self._work: asyncio.Future[None] | None = None

    def take(self, event: WatchEvent) -> None:
        """Note what the watcher of the cluster has reported."""
        self._is_out = isinstance(event, Outage)
        if isinstance(event, JobStatus):
            self._status = event
        if isinstance(event, (JobStatus, Outage, Failure)):
            self._news.set()

    async def until_elsewhere(self) -> Submission:
        """
        Keep the place until the job is on another cluster, and return how it got there.

        :raises WorkerNeeded: only a worker can go on.
        """
        while True:
            await self._wait_for_news()
            if self._keeper.is_due(self._status, is_out_of_reach=self._is_out):
                self._work = asyncio.ensure_future(in_thread(self._do))
                try:
                    # What has begun goes on if the follower has ended meanwhile, see rest().
                    await asyncio.shield(self._work)
                except JobWentElsewhere as went:
                    return went.submission

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

    def _do(self) -> None:
        if self._is_out:
            self._keeper.out_of_reach()
        elif self._status is not None:
            self._keeper.in_contact(self._member, self._status)
