"""Looks up the status of jobs: many open pages are served by few calls to the cluster."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of
from airflow_provider_gpu_cluster.plugins.job_acts import acts_of

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import ActLine

log = logging.getLogger(__name__)

LOG_TAIL_BYTES = 16_000
CALL_LIMIT_S = 20.0


@dataclass(frozen=True)
class JobAnswer:
    """
    A cluster's answer about a job.

    :param status: the job's status; None if the cluster has not answered.
    :param acts: who has done what with the job, the oldest first.
    :param error: why it has not, in one sentence; None while the call is still under way.
    :param answered_at: time of the answer, by the monotonic clock.
    """

    status: JobStatus | None = None
    error: str | None = None
    acts: tuple[ActLine, ...] = ()
    answered_at: float = field(default_factory=time.monotonic)


def ask_cluster(handle: JobHandle) -> JobAnswer:
    """
    Ask the job's cluster once.

    :raises GpuClusterError: the cluster could not be asked.
    """
    with cluster_of(handle.gpu_cluster_conn_id) as cluster:
        # A cluster that accepts the call and then stays silent must not block a thread for longer than this.
        limit = threading.Timer(CALL_LIMIT_S, cluster.interrupt)
        limit.daemon = True
        limit.start()
        try:
            # No retries: the user wants an answer now, and the page asks again in a moment anyway.
            once = cluster.retrying_for(0)
            (status,) = once.statuses([handle.job_id], tail_bytes=LOG_TAIL_BYTES)
            return JobAnswer(status, acts=tuple(acts_of(once, status)))
        finally:
            limit.cancel()


class JobLookup:
    """
    Returns the status of jobs. One call serves everybody who asks for the same job during the call and shortly after.

    :param ask: asks the cluster; blocks, and runs in a thread.
    :param keep_s: how long an answer is valid, in seconds.
    :param keep_error_s: how long a cluster that could not be reached is not asked again for any job, in seconds.
    :param max_jobs: largest number of jobs to remember.
    :param threads: largest number of calls at once.
    """

    def __init__(
        self,
        ask: Callable[[JobHandle], JobAnswer] = ask_cluster,
        *,
        keep_s: float = 2.0,
        keep_error_s: float = 10.0,
        max_jobs: int = 256,
        threads: int = 8,
    ) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._keep_error_s = keep_error_s
        self._max_jobs = max_jobs
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gpu-job-page")
        self._lock = threading.Lock()
        self._calls: dict[JobHandle, Future[JobAnswer]] = {}
        self._unreachable: dict[str, JobAnswer] = {}

    async def look(self, handle: JobHandle, *, wait_s: float) -> JobAnswer:
        """
        Return the job's status.

        :param wait_s: how long to wait for the cluster, in seconds. After that the answer has neither a status nor
            an error; the call continues, and the next caller gets its result.
        """
        with self._lock:
            call = self._calls.get(handle)
            if call is None or self._stale(call):
                if not self._make_room(handle):
                    return JobAnswer(error="Too many job pages are open right now; try again in a moment.")
                call = self._calls[handle] = self._pool.submit(self._answer, handle)
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(call)), wait_s)
        except asyncio.TimeoutError:
            return JobAnswer()

    def _stale(self, call: Future[JobAnswer]) -> bool:
        return call.done() and call.result().answered_at + self._keep_s < time.monotonic()

    def _make_room(self, handle: JobHandle) -> bool:
        """Drop the oldest answers so that one more call fits; calls under way are never dropped."""
        self._calls.pop(handle, None)
        for old in [other for other, call in self._calls.items() if call.done()]:
            if len(self._calls) < self._max_jobs:
                break
            del self._calls[old]
        return len(self._calls) < self._max_jobs

    def _answer(self, handle: JobHandle) -> JobAnswer:
        conn_id = handle.gpu_cluster_conn_id
        unreachable = self._unreachable.get(conn_id)
        if unreachable and unreachable.answered_at + self._keep_error_s > time.monotonic():
            return unreachable
        self._unreachable.pop(conn_id, None)
        try:
            return self._ask(handle)
        except GpuClusterConnectionError as error:
            answer = self._unreachable[conn_id] = JobAnswer(error=str(error))
            return answer
        except (GpuClusterError, AirflowNotFoundException) as error:
            return JobAnswer(error=str(error))
        except Exception as error:
            # Its text may hold anything, even a password, so it goes only to the API server's log.
            log.exception("could not ask %s about job %s", conn_id, handle.job_id)
            return JobAnswer(
                error=f"An unexpected {type(error).__name__} occurred while asking the cluster; "
                "the API server's log has the details."
            )
