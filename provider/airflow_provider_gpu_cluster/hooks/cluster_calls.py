"""What the hook does with its one cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.hooks.summary import summary_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.job_list import JobsReply
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import UsageRow
    from airflow_provider_gpu_cluster.gpu_run.protocol.replies import Capacity
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.request import JobRequest
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.sources import Source


class ClusterCalls:
    """
    Calls to one cluster; :class:`.PoolCalls` has the same methods for several.

    All jobs are taken to be on it, whatever their handles say.

    :param conn_id: its connection.
    :param open_cluster: returns the cluster.
    """

    def __init__(self, conn_id: str, open_cluster: Callable[[], Cluster]) -> None:
        self._conn_id = conn_id
        self._open_cluster = open_cluster

    def conn_id_of(self, job_id: str, conn_id: str | None) -> str:
        """Return the connection of the cluster where a job is."""
        return self._conn_id

    def stage(self, request: JobRequest, identity: JobIdentity, sources: Sequence[Source]) -> JobHandle:
        """Copy a job's inputs."""
        return self._open_cluster().stage(identity.job_id, sources, record=identity.record)

    def launch(self, request: JobRequest, identity: JobIdentity, *, base_dir: Path) -> Submission:
        """
        Launch a job, or find it.

        :param base_dir: folder that relative sources start from.
        """
        arguments = request.launch_arguments(identity, base_dir=base_dir, staged=False)
        sources = request.sources(base_dir=base_dir)
        return self._open_cluster().submit(identity.job_id, sources=sources, **arguments)

    def statuses(self, jobs: Sequence[tuple[str | None, str]], *, tail_bytes: int = 0) -> list[JobStatus]:
        """
        Return the statuses of jobs, in the given order.

        :param jobs: what each one's handle names as its connection, and its id.
        :param tail_bytes: how much of the end of each output to include, in bytes.
        """
        return self._open_cluster().statuses([job_id for _, job_id in jobs], tail_bytes=tail_bytes) if jobs else []

    def cancel(self, job_ids: Sequence[str], *, requested_by: str) -> None:
        """Cancel jobs."""
        self._open_cluster().cancel(job_ids, requested_by=requested_by)

    def cancel_one(self, job_id: str, *, requested_by: str, wait_s: float) -> tuple[str, JobStatus]:
        """Cancel a job; return its connection and its status there."""
        (status,) = self._open_cluster().cancel([job_id], requested_by=requested_by, wait_s=wait_s)
        return self._conn_id, status

    def capacity(self) -> tuple[dict[str, Any], dict[str, Capacity]]:
        """Return what :meth:`.GpuClusterHook.capacity` returns, and the capacity of each cluster that answered."""
        capacity = self._open_cluster().capacity()
        return dict(capacity), {self._conn_id: capacity}

    def jobs(self) -> dict[str, JobsReply]:
        """Return the jobs that wait or run on each cluster that answers."""
        return {self._conn_id: self._open_cluster().jobs()}

    def usage(self, *, since: datetime | None, until: datetime | None, by: str) -> list[UsageRow]:
        """Return what :meth:`.GpuClusterHook.usage` returns."""
        return self._open_cluster().usage(since=since, until=until, by=by)["rows"]

    def collect_garbage(self, older_than_s: float | None, *, dry_run: bool) -> dict[str, Any]:
        """Return what was removed."""
        return dict(self._open_cluster().collect_garbage(older_than_s, dry_run=dry_run))

    def audit(self, job_id: str) -> list[dict[str, Any]]:
        """Return what was done with a job, the oldest first."""
        return [dict(line) for line in self._open_cluster().audit(job_id)["acts"]]

    def test(self, warnings: Callable[[str], Iterable[str]]) -> tuple[bool, str]:
        """
        Return that the cluster works, and what is known of it, for Airflow's button.

        :param warnings: returns what was found wrong with a connection on the Airflow side.
        """
        cluster = self._open_cluster()
        found = cluster.check()
        return True, summary_of(cluster.settings, found, warnings=warnings(self._conn_id))
