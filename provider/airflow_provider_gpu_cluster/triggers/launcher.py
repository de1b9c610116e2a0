"""Launching the job of a deferred task, through the watcher that will watch it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.connection.retry import PATIENCE_S, is_worth_another_try, patience_with
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.logs.job_log import Log, tell_submission
from airflow_provider_gpu_cluster.watch.watcher import Watcher

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest

_PAUSE_S = 1.0


class Launching:
    """
    Launches one job.

    :param request: from :func:`.submit_request`, with nothing to send.
    :param log: the task's log.
    """

    def __init__(self, request: SubmitRequest, watcher: Watcher, *, log: Log) -> None:
        self._request = request
        self._watcher = watcher
        self._log = log
        self._asked: Future[Submission] | None = None

    async def to_the_end(self) -> Submission:
        """
        Return what came of it, which is in the task's log then.

        Cancelled, it asks no cluster any more that it has not asked already; see :meth:`settle`.

        :raises GpuClusterConnectionError: the cluster stays out of reach, for as long as a worker would try.
        :raises GpuClusterError: the cluster cannot launch it.
        """
        began = time.monotonic()
        trouble_since: float | None = None
        while True:
            self._asked = self._watcher.launch(self._request)
            try:
                submission = await asyncio.wrap_future(self._asked)
            except GpuClusterConnectionError as error:
                now = time.monotonic()
                if trouble_since is None:
                    trouble_since = now
                    event = "GPU cluster cannot be reached; the job is not launched yet, trying again"
                    self._log.warning(event, job_id=self._request["job_id"], error=str(error))
                if not is_worth_another_try(error) or now - trouble_since >= patience_with(error, PATIENCE_S):
                    raise
            else:
                duration_s = time.monotonic() - began
                tell_submission(submission, self._log, cluster=self._watcher.name, duration_s=duration_s)
                return submission
            await asyncio.sleep(_PAUSE_S)

    async def settle(self) -> None:
        """Return when nobody is about to launch the job any more, whether it was launched or not."""
        if self._asked is not None and not self._asked.cancel():
            await asyncio.wait({asyncio.wrap_future(self._asked)})
