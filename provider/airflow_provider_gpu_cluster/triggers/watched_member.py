"""A cluster of a pool, asked over the watcher of its connection; for the threads of a triggerer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.triggers.watchers import watcher_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import AppraiseReply, JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement, PlaceReply, Renewal, RenewReply
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.jobs.submission import Submission

# A call takes at most half a minute on the cluster.
_LONGEST_S = 60.0
_LONGEST_LAUNCH_S = 300.0

_Result = TypeVar("_Result")


class WatchedMember:
    """
    Has those methods of :class:`.Cluster` with which a job that needs no files from here is placed and launched.

    :param conn_id: its connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    @cached_property
    def settings(self) -> ClusterSettings:
        """Settings of the cluster."""
        return GpuClusterHook(self._conn_id).settings

    def retrying_for(self, seconds: float) -> WatchedMember:
        """Return this: its watcher keeps trying, and says at once while it cannot reach the cluster."""
        return self

    def appraise(self, jobs: Sequence[JobToAppraise]) -> AppraiseReply:
        """Return what the cluster offers for jobs."""
        return cast("AppraiseReply", self._call("appraise", {"jobs": list(jobs)}))

    def place(
        self,
        job_id: str,
        placement: Placement,
        kind: str,
        *,
        spec: Spec | None = None,
        if_free: bool = False,
        by: str = "",
    ) -> PlaceReply:
        """Tell the cluster which one has a job."""
        request: dict[str, Any] = {"job_id": job_id, "placement": placement, "kind": kind}
        if spec is not None:
            request["spec"] = spec
        if if_free:
            request["if_free"] = True
        if by:
            request["by"] = by
        return cast("PlaceReply", self._call("place", request))

    def renew(self, jobs: Sequence[Renewal]) -> RenewReply:
        """Renew placements."""
        return cast("RenewReply", self._call("renew", {"jobs": list(jobs)}))

    def launch(self, request: SubmitRequest) -> Submission:
        """Launch a job, or find it launched."""
        return self._result(watcher_of(self._conn_id).launch(request), _LONGEST_LAUNCH_S)

    def interrupt(self) -> None:
        """Leave the connection to its watcher, which others use as well."""

    def close(self) -> None:
        """Leave the connection to its watcher, which others use as well."""

    def _call(self, verb: str, request: dict[str, Any]) -> Any:
        return self._result(watcher_of(self._conn_id).call(verb, request), _LONGEST_S)

    def _result(self, future: Future[_Result], longest_s: float) -> _Result:
        try:
            return future.result(longest_s)
        except (FutureTimeoutError, CancelledError) as error:
            future.cancel()
            raise GpuClusterConnectionError(
                f"connection {self._conn_id}: nothing was answered within {longest_s:g} s"
            ) from error
