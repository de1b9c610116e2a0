"""A trigger that takes a job's output from the watcher as fast as it comes, and does nothing with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.relay import Output
from airflow_provider_gpu_cluster.triggers.watchers import watcher_of
from airflow_provider_gpu_cluster.watch.events import Place, WatchEvent
from airflow_provider_gpu_cluster.watch.subscriptions import Subscription


class OutputTaker(BaseTrigger):
    """
    Fires when all output of a job that has ended has come: when the first of it came, how many lines and bytes.

    :param job: handle of the job.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job = job
        self._subscription: Subscription | None = None
        self._size: int | None = None
        self._bytes = self._lines = 0
        self._began = 0.0
        self._all_has_come = asyncio.Event()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments to make this trigger again."""
        return f"{__name__}.OutputTaker", {"job": self.job}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Take the output to its end."""
        loop = asyncio.get_running_loop()

        def notify(event: WatchEvent) -> None:
            if self._take(event):
                loop.call_soon_threadsafe(self._all_has_come.set)

        watcher = watcher_of(self.job["gpu_cluster_conn_id"])
        self._subscription = watcher.subscribe(self.job["job_id"], notify, reader="taker", poll_interval_s=10)
        await self._all_has_come.wait()
        self._subscription.close()
        yield TriggerEvent({"began": self._began, "lines": self._lines, "bytes": self._bytes})  # type: ignore[no-untyped-call]

    def _take(self, event: WatchEvent) -> bool:
        """Take an event, in the watcher's thread; True when nothing more will come."""
        if isinstance(event, Place):
            self._began = time.time()
        elif isinstance(event, Output):
            self._bytes += len(event.data)
            self._lines += event.data.count(b"\n")
            assert self._subscription is not None
            self._subscription.ack(event.end, {})
        elif isinstance(event, JobStatus) and event.final:
            self._size = event.log_bytes
        return self._bytes == self._size


def output_taker(handle: JobHandle) -> OutputTaker:
    """Return the trigger for a job."""
    return OutputTaker(handle.to_json())
