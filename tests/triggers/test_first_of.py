"""A job of a pool that ends while its place is kept."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.keeping import Keeper
from airflow_provider_gpu_cluster.triggers.place_keeping import PlaceKeeping, first_of
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from tests.harness.patience import PATIENCE_S

HANDLE = JobHandle("j", "lab", "/jobs/j", "host", "2026-11-28T12:00:00+00:00", 1)
STATUS = JobStatus("j", JobState.SUCCEEDED)


class IdleKeeper:
    """Stands for a keeper that has nothing to do."""

    def is_due(self, *_: Any, **__: Any) -> bool:
        return False


@pytest.mark.parametrize("turns", range(6))
def test_a_job_that_ends_is_let_go_in_whatever_moment_its_end_is_noted(turns: int) -> None:
    async def run() -> WatchEnd | Any:
        keeping = PlaceKeeping(cast("Keeper", IdleKeeper()), cast("Any", None), HANDLE)

        class Follower:
            async def to_the_end(self) -> WatchEnd:
                await asyncio.sleep(0.01)
                keeping.take(STATUS)
                for _ in range(turns):
                    await asyncio.sleep(0)
                return WatchEnd(HANDLE, STATUS)

        return await asyncio.wait_for(first_of(Follower(), keeping), PATIENCE_S)

    assert asyncio.run(run()) == WatchEnd(HANDLE, STATUS)
