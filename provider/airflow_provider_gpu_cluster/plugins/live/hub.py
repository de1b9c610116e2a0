"""All jobs that somebody looks at in this process, each followed once for any number of viewers."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from airflow_provider_gpu_cluster.job_table.status_note import note_status
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.plugins.job_detail import Known
from airflow_provider_gpu_cluster.plugins.live.live_job import Changed, LiveJob
from airflow_provider_gpu_cluster.plugins.live.viewer import OpenPage

# How long a job is followed for the next viewer, in seconds.
LINGER_S = 10.0


class Hub:
    """The jobs that are followed in one event loop."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str], LiveJob] = {}

    def join(self, handle: JobHandle, viewer: OpenPage, changed: Changed, *, is_element: bool = False) -> LiveJob:
        """
        Tell a viewer about a job from now on; see :meth:`.LiveJob.add`.

        :param is_element: whether it is an element of an array, of which the table of jobs has no row.
        """
        key = handle.gpu_cluster_conn_id, handle.job_id
        job = self.jobs.get(key)
        if job is None:
            job = self.jobs[key] = LiveJob(handle, _ignore if is_element else note_status)
        job.add(viewer, changed)
        return job

    def known_of(self, handle: JobHandle) -> Known | None:
        """Return what is known of a job that is followed and described; None if it is not."""
        job = self.jobs.get((handle.gpu_cluster_conn_id, handle.job_id))
        known = None if job is None else job.known
        return known if known is not None and known.status is not None and known.description is not None else None

    def leave(self, job: LiveJob, viewer: OpenPage) -> None:
        """Tell it nothing more about the job; without viewers, the job is followed for only a while."""
        job.remove(viewer)
        if not job.viewers:
            asyncio.get_running_loop().call_later(LINGER_S, self._close, job)

    def _close(self, job: LiveJob) -> None:
        key = job.handle.gpu_cluster_conn_id, job.handle.job_id
        if not job.viewers and self.jobs.get(key) is job:
            del self.jobs[key]
            job.close()


def _ignore(handle: JobHandle, status: JobStatus) -> None:
    """Tell nobody."""


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop; an API server has one."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]
