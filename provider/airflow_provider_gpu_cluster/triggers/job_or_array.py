"""Chooses the follower of a job or an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.triggers.array_follower import ArrayFollower
from airflow_provider_gpu_cluster.triggers.job_follower import JobFollower
from airflow_provider_gpu_cluster.watch.watcher import Watcher


def follower_of(
    handle: JobHandle,
    watcher: Watcher,
    *,
    watcher_of: Callable[[str], Watcher],
    memory: dict[str, Any] | None = None,
    **how: Any,
) -> JobFollower | ArrayFollower:
    """
    Return the follower of a job or an array; see :class:`.JobFollower` for the parameters.

    :param watcher_of: returns the watcher of a connection, for an array on several clusters.
    :param memory: what the log of an earlier follower of an array remembers.
    """
    if handle.array_size is None:
        return JobFollower(handle, watcher, **how)
    return ArrayFollower(handle, watcher, watcher_of=watcher_of, memory=memory, **how)
