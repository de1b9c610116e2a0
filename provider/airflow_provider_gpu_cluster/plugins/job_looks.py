"""Looks at jobs for pages and scripts: one question to a cluster serves all who ask for the same job meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.progress import Pace
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.plugins.job_detail import Known
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.progress_view import seconds_left

log = logging.getLogger(__name__)

VERB = "describe-job"
_Ask = Callable[[str, str, dict[str, Any]], Awaitable[Any]]


@dataclass
class _Look:
    """What is known of a job, and the question that is under way."""

    known: Known = field(default_factory=Known)
    pace: Pace | None = None
    over_at: float = float("-inf")
    task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        # Of a loop that has been closed, nothing comes any more.
        task = self.task
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()


@dataclass(frozen=True)
class _Outage:
    """A cluster that cannot be asked: why, since when, and when that was last tried."""

    error: str
    since: datetime
    tried_at: float


class JobLooks:
    """
    Looks at jobs.

    :param ask: asks a cluster; see :func:`.live.asking.ask`.
    :param keep_s: for how long an answer serves further callers, in seconds.
    :param keep_error_s: for how long a cluster that could not be reached is not asked again, for any job, in seconds.
    :param most_jobs: how many jobs are remembered.
    """

    def __init__(
        self, ask: _Ask = ask, *, keep_s: float = 2.0, keep_error_s: float = 10.0, most_jobs: int = 256
    ) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._keep_error_s = keep_error_s
        self._most_jobs = most_jobs
        self._looks: dict[tuple[str, str], _Look] = {}
        self._outages: dict[str, _Outage] = {}
        # A task that nothing refers to may be collected before it is done.
        self._tasks: set[asyncio.Task[None]] = set()

    async def look(self, handle: JobHandle, *, wait_s: float) -> Known:
        """
        Return what is known of a job.

        :param wait_s: how long to wait for its cluster, in seconds. After that it is what was known before; the
            question goes on, and the next caller gets its answer.
        """
        conn_id = handle.gpu_cluster_conn_id
        one = self._looks.pop((conn_id, handle.job_id), None) or _Look()
        self._looks[conn_id, handle.job_id] = one
        self._forget()
        if not one.is_under_way and one.over_at + self._keep_s <= time.monotonic() and not self._is_out(conn_id):
            one.task = asyncio.create_task(self._look(handle, one))
            self._tasks.add(one.task)
            one.task.add_done_callback(self._tasks.discard)
        if one.is_under_way and one.task is not None:
            await asyncio.wait([one.task], timeout=wait_s)
        outage = self._outages.get(conn_id)
        if outage is None:
            return one.known
        return replace(one.known, error=outage.error, error_since=outage.since)

    def forget(self, handle: JobHandle) -> None:
        """Look anew when somebody asks the next time, as something has been done to the job."""
        one = self._looks.get((handle.gpu_cluster_conn_id, handle.job_id))
        if one is not None:
            one.over_at = float("-inf")

    def _forget(self) -> None:
        """Forget those that nobody has asked about for the longest time; the last one is asked about now."""
        for key in list(self._looks)[: max(0, len(self._looks) - self._most_jobs)]:
            del self._looks[key]

    def _is_out(self, conn_id: str) -> bool:
        outage = self._outages.get(conn_id)
        return outage is not None and time.monotonic() < outage.tried_at + self._keep_error_s

    async def _look(self, handle: JobHandle, one: _Look) -> None:
        conn_id, job_id = handle.gpu_cluster_conn_id, handle.job_id
        try:
            answer = await self._ask(conn_id, VERB, {"job_id": job_id})
            now = datetime.now(timezone.utc)
            status = JobStatus.from_json(answer["status"])
            one.pace = Pace.seen(status.progress, one.pace, now.timestamp())
            left_s = seconds_left(status, one.pace, now)
            one.known = Known(status, answer, as_of=now, seconds_left=left_s)
            self._outages.pop(conn_id, None)
        except asyncio.TimeoutError:
            self._note_outage(conn_id, f"The cluster of connection {conn_id} has not answered in time.")
        except GpuClusterConnectionError as error:
            self._note_outage(conn_id, str(error))
        except (GpuClusterError, AirflowNotFoundException) as error:
            one.known = replace(one.known, error=str(error))
        except Exception as error:
            # Its text may hold anything, even a password, so it goes only to the API server's log.
            log.exception("could not ask %s about job %s", conn_id, job_id)
            told = f"An unexpected {type(error).__name__} occurred while asking the cluster"
            one.known = replace(one.known, error=f"{told}; the API server's log has the details.")
        finally:
            one.over_at = time.monotonic()

    def _note_outage(self, conn_id: str, error: str) -> None:
        before = self._outages.get(conn_id)
        since = datetime.now(timezone.utc) if before is None else before.since
        self._outages[conn_id] = _Outage(error, since, time.monotonic())


looks = JobLooks()
