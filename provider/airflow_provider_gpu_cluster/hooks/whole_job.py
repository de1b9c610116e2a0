"""What the hook does with a job, or a whole array, that one cluster has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.jobs.resubmission import resubmit_request

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.sinks import Sink
    from airflow_provider_gpu_cluster.transfer.download import CollectedFile


class WholeJob:
    """
    A job on one cluster; :class:`.ArrayInParts` has the same methods.

    :param job_id: of the job, or of the array.
    :param find: returns the cluster that has it.
    """

    def __init__(self, job_id: str, find: Callable[[], Cluster]) -> None:
        self._job_id = job_id
        self._find = find

    @cached_property
    def _cluster(self) -> Cluster:
        return self._find()

    def statuses_of(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the statuses of the job, or of elements of the array."""
        return self._cluster.statuses(job_ids)

    def cancel(self, *, requested_by: str, wait_s: float, request_key: str | None) -> JobStatus:
        """Do what :meth:`.GpuClusterHook.cancel` says."""
        keys = None if request_key is None else {self._job_id: request_key}
        return self._cluster.cancel([self._job_id], requested_by=requested_by, wait_s=wait_s, request_keys=keys)[0]

    def resubmit(
        self, *, request_key: str, env: Mapping[str, Any] | None, array: Sequence[Any] | None, after: int | None
    ) -> Submission:
        """Do what :meth:`.GpuClusterHook.resubmit` says."""
        request = resubmit_request(self._job_id, request_key=request_key, env=env, array=array, after=after)
        return self._cluster.resubmit(request)

    def collect(self, sink: Sink, *, include: Sequence[str], exclude: Sequence[str]) -> list[CollectedFile]:
        """Download the outputs; for an array, into a folder for each element, named after its index."""
        return self._cluster.collect(self._job_id, sink, include=include, exclude=exclude)
