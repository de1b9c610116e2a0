"""Chooses the follower of a job or an array."""

from __future__ import annotations

from typing import Any

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollower
from airflow_provider_gpu_cluster.triggers.job_follower import JobFollower
from airflow_provider_gpu_cluster.watch.watcher import Watcher


def follower_of(handle: JobHandle, watcher: Watcher, **how: Any) -> JobFollower | ArrayFollower:
    """Return the follower of a job or an array; see :class:`.JobFollower` for the parameters."""
    follower = JobFollower if handle.array_size is None else ArrayFollower
    return follower(handle, watcher, **how)
