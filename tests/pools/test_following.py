"""A job that went from cluster to cluster is found by its first handle."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import ArrayPart, JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.array_log import memory_elsewhere
from airflow_provider_gpu_cluster.pools.following import current_handle

HANDLE = JobHandle("job", "a", "/jobs/job", "host", None, 1)


class FakeCluster:
    """A cluster that knows where a job went. It is a fake."""

    def __init__(self, conn_id: str, went: dict[str, list[str | None]]) -> None:
        self.settings = SimpleNamespace(conn_id=conn_id, engine="slurm", root_dir=f"/{conn_id}/")
        self._went = went[conn_id]

    def statuses(self, job_ids: list[str]) -> list[JobStatus]:
        moved_to = self._went.pop(0) if len(self._went) > 1 else self._went[0]
        return [JobStatus(job_id, JobState.UNKNOWN, moved_to=moved_to) for job_id in job_ids]


def follow(**went: list[str | None]) -> JobHandle:
    return current_handle(HANDLE, open_cluster_of(went))


def open_cluster_of(went: dict[str, list[str | None]]) -> Any:
    return lambda conn_id: FakeCluster(conn_id, went)


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


def test_each_part_of_an_array_is_followed() -> None:
    parts = (ArrayPart("job", "a", "/jobs/job", "host", 0, 2), ArrayPart("job.p2", "b", "/b/job.p2", "host", 2, 3))
    array = replace(HANDLE, array_size=5, parts=parts)
    assert current_handle(array, open_cluster_of({"a": [None], "b": [None]})) == array
    found = current_handle(array, open_cluster_of({"a": ["b"], "b": [None]}))
    assert found.conn_ids == ("b",)
    assert (found.gpu_cluster_conn_id, found.job_dir, found.parts[1]) == ("b", "/b/job", parts[1])
    assert [element.job_dir for element in found.elements[:3]] == ["/b/job_0", "/b/job_1", "/b/job.p2_0"]


def test_a_log_goes_on_for_the_elements_that_stay() -> None:
    parts = (ArrayPart("job", "a", "/jobs/job", "host", 0, 2), ArrayPart("job.p2", "b", "/b/job.p2", "host", 2, 2))
    before = replace(HANDLE, array_size=4, parts=parts)
    after = before.with_arrays([before.arrays[0], replace(before.arrays[1], gpu_cluster_conn_id="a")])
    memory = {"elements": {"1": {"running": 1}, "3": {"running": 1}}, "ended": [0, 2], "outage": {}}
    assert memory_elsewhere(memory, before, after) == {"elements": {"1": {"running": 1}}, "ended": [0]}
    assert memory_elsewhere(memory, HANDLE, HANDLE) == {}
