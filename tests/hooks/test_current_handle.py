"""A job that went from cluster to cluster is found by its first handle."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.hooks.current_handle import followed
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

HANDLE = JobHandle("job", "a", "/jobs/job", "host", None, 1)


class Hook:
    """The hook of a cluster that knows where a job went. It is a fake."""

    def __init__(self, conn_id: str, went: dict[str, list[str | None]]) -> None:
        self.settings = SimpleNamespace(engine="slurm", root_dir=f"/{conn_id}/")
        self._went = went[conn_id]

    def status(self, handle: JobHandle) -> JobStatus:
        moved_to = self._went.pop(0) if len(self._went) > 1 else self._went[0]
        return JobStatus("job", JobState.UNKNOWN, moved_to=moved_to)


def follow(**went: list[str | None]) -> JobHandle:
    hook_of: Any = lambda conn_id: Hook(conn_id, went)  # noqa: E731
    handle, status = followed(HANDLE, hook_of)
    assert status.moved_to in (None, handle.gpu_cluster_conn_id)
    return handle


@pytest.mark.parametrize(
    ("went", "where"),
    [
        ({"a": [None]}, "a"),
        ({"a": ["a"]}, "a"),
        ({"a": ["b"], "b": [None]}, "b"),
        ({"a": ["b"], "b": ["c"], "c": [None]}, "c"),
        # It was moved back while it was looked for.
        ({"a": ["b", None], "b": ["a"]}, "a"),
    ],
)
def test_it_is_found_hop_by_hop(went: dict[str, list[str | None]], where: str) -> None:
    found = follow(**went)
    assert found.gpu_cluster_conn_id == where
    if where != "a":
        assert found == replace(HANDLE, gpu_cluster_conn_id=where, engine="slurm", job_dir=f"/{where}/job")


def test_clusters_that_send_each_to_the_other_are_told_of() -> None:
    with pytest.raises(GpuClusterError, match=r"each of its clusters says that it is on another one .*a -> b"):
        follow(a=["b"], b=["a"])
