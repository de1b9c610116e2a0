"""What the hook does with an array whose elements are on several clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.pools import parts
from airflow_provider_gpu_cluster.pools.following import current_handle

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.sinks import Sink
    from airflow_provider_gpu_cluster.transfer.download import CollectedFile


class ArrayInParts:
    """
    An array on several clusters; :class:`.WholeJob` has the same methods.

    :param handle: of the whole array.
    :param open_cluster: returns the cluster of a connection.
    """

    def __init__(self, handle: JobHandle, open_cluster: parts.OpenCluster) -> None:
        self._handle = handle
        self._open_cluster = open_cluster

    @cached_property
    def _now(self) -> JobHandle:
        """The array, with each part where it is."""
        return current_handle(self._handle, self._open_cluster)

    def statuses_of(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the statuses of elements."""
        every = {status.job_id: status for status in parts.statuses_of_elements(self._now, self._open_cluster)}
        return [every[job_id] for job_id in job_ids]

    def cancel(self, *, requested_by: str, wait_s: float, request_key: str | None) -> JobStatus:
        """Cancel all parts that can be reached; its parts have no launch of one try that may be on its way."""
        return parts.cancel(self._handle, self._open_cluster, requested_by=requested_by, wait_s=wait_s)

    def resubmit(
        self, *, request_key: str, env: Mapping[str, Any] | None, array: Sequence[Any] | None, after: int | None
    ) -> Submission:
        """Start the elements that have ended badly; each part has attempts of its own, which ``after`` cannot name."""
        return parts.resubmit(self._now, self._open_cluster, request_key=request_key, env=env, array=array)

    def collect(self, sink: Sink, *, include: Sequence[str], exclude: Sequence[str]) -> list[CollectedFile]:
        """Download the outputs, into a folder for each element, named after its index in the whole array."""
        return parts.collect(self._now, self._open_cluster, sink, include=include, exclude=exclude)
