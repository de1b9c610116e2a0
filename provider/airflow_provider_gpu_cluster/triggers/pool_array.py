"""The parts of an array on several clusters, for a trigger that waits for it: the place of each is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY
from airflow_provider_gpu_cluster.triggers.place_keeping import PlaceKeeping
from airflow_provider_gpu_cluster.triggers.pool_job import PoolArgument, PoolJob

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.watch.events import WatchEvent


class PoolArray:
    """An array in parts, with the parameters and the methods of a :class:`.PoolJob`; a worker has launched it."""

    def __init__(self, argument: PoolArgument, ti: Any, *, log: Log, unreachable_timeout_s: float) -> None:
        self._parts = {
            job_id: PoolJob(
                job_id,
                {**argument, **own},  # type: ignore[typeddict-item]
                ti,
                log=log,
                unreachable_timeout_s=unreachable_timeout_s,
                key=f"{PLACEMENT_KEY}:{job_id}",
            )
            for job_id, own in argument.get("parts", {}).items()
        }
        self._keepings: dict[tuple[str, str], PlaceKeeping] = {}

    async def keeping(self, handle: JobHandle) -> PartsKeeping:
        """Return what keeps the places of the parts on the clusters where they are now."""
        keepings = []
        for array in handle.arrays:
            place = array.job_id, array.gpu_cluster_conn_id
            if place not in self._keepings:
                self._keepings[place] = await self._parts[array.job_id].keeping(array)
            keepings.append(self._keepings[place])
        return PartsKeeping(handle, keepings)

    async def cancelled_at(self) -> list[tuple[str, str]]:
        """Return the clusters on which something of a part may wait or run, see :meth:`.PoolJob.cancelled_at`."""
        return [place for part in self._parts.values() for place in await part.cancelled_at()]

    def part(self, job_id: str) -> PoolJob:
        """Return one of the parts."""
        return self._parts[job_id]

    async def placement(self) -> dict[str, Any]:
        """Return where the parts are, as far as that is known, once all that was begun is done."""
        for keeping in self._keepings.values():
            await keeping.settled()
        placements = {job_id: await part.placement() for job_id, part in self._parts.items()}
        return {"parts": {job_id: placement for job_id, placement in placements.items() if placement is not None}}

    def stop(self) -> None:
        """Launch nothing any more."""
        for part in self._parts.values():
            part.stop()


class PartsKeeping:
    """
    Keeps the places of an array's parts, each as a :class:`.PlaceKeeping` does.

    :param handle: the array, where it is now.
    :param keepings: of each part.
    """

    def __init__(self, handle: JobHandle, keepings: list[PlaceKeeping]) -> None:
        self._handle = handle
        self._keepings = keepings

    def take(self, event: WatchEvent, index: int | None = None) -> None:
        """Note what the watcher of a cluster has reported of an element."""
        assert index is not None
        sizes = [array.array_size or 0 for array in self._handle.arrays]
        for keeping, size in zip(self._keepings, sizes, strict=True):
            if index < size:
                keeping.take(event, index)
                return
            index -= size

    async def until_elsewhere(self) -> Submission:
        """
        Keep the places until a part is on another cluster, and return how the array got there.

        :raises WorkerNeeded: only a worker can go on.
        """
        leaving = [asyncio.ensure_future(keeping.until_elsewhere()) for keeping in self._keepings]
        try:
            await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)
            return self._whole([one.result() if one.done() else None for one in leaving])
        finally:
            for one in leaving:
                one.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)

    async def rest(self) -> Submission | None:
        """Wait for what was begun when the array has ended; return how it got to other clusters, if it did."""
        went = [await keeping.rest() for keeping in self._keepings]
        return self._whole(went) if any(went) else None

    def _whole(self, went: list[Submission | None]) -> Submission:
        arrays = [array if one is None else one.handle for array, one in zip(self._handle.arrays, went, strict=True)]
        last = next(one for one in went if one is not None)
        return Submission(self._handle.with_arrays(arrays), last.status, created=last.created)
