"""Launches the job of a deferred task, through the watcher that will watch it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

import tenacity

from airflow_provider_gpu_cluster.connection.retry import (
    RETRY_FOR_S,
    StopWhenOutOfReach,
    error_of_try,
    is_worth_another_try,
)
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.logs.job_log import Log, tell_submission
from airflow_provider_gpu_cluster.watch.watcher import Watcher

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest

PAUSE_S = 1.0


class JobLauncher:
    """
    Launches one job.

    :param request: from :func:`.submit_request`, without files to send.
    :param log: the task's log.
    """

    def __init__(self, request: SubmitRequest, watcher: Watcher, *, log: Log) -> None:
        self._request = request
        self._watcher = watcher
        self._log = log
        self._asked: Future[Submission] | None = None

    async def to_the_end(self) -> Submission:
        """
        Launch the job, log the result, and return it.

        :raises GpuClusterConnectionError: the cluster was unreachable for as long as a worker would have tried.
        :raises GpuClusterError: the cluster cannot launch the job.
        """
        began = time.monotonic()
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_worth_another_try),
            wait=tenacity.wait_fixed(PAUSE_S),
            stop=StopWhenOutOfReach(RETRY_FOR_S),
            before_sleep=self._tell_outage,
            reraise=True,
        )
        submission: Submission = await retrying(self._try_once)
        tell_submission(submission, self._log, cluster=self._watcher.name, duration_s=time.monotonic() - began)
        return submission

    async def _try_once(self) -> Submission:
        self._asked = self._watcher.launch(self._request)
        return await asyncio.wrap_future(self._asked)

    def _tell_outage(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            event = "GPU cluster cannot be reached; the job is not launched yet, trying again"
            self._log.warning(event, job_id=self._request["job_id"], error=str(error_of_try(state)))

    def take_back(self) -> None:
        """Do not ask the cluster, if it was not asked yet."""
        if self._asked is not None:
            self._asked.cancel()
