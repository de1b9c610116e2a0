"""What follows a job, or an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.triggers.job_follower import Following
from airflow_provider_gpu_cluster.watch.watcher import Watcher

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollowing


def following_of(handle: JobHandle, watcher: Watcher, **how: Any) -> Following | ArrayFollowing:
    """Return what follows a job, or an array; see :class:`Following` for the parameters."""
    if handle.array_size is None:
        return Following(handle, watcher, **how)
    from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollowing

    return ArrayFollowing(handle, watcher, **how)
