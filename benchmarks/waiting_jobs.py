"""Many jobs to wait for, and the triggers that do."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.triggers.gpu_job import GpuJobTrigger
from benchmarks.triggerer import Triggerer
from tests.harness.jobs import submit, wait

READER = "bench"
_blockers = itertools.count(1)


def running_jobs(session: Cluster, count: int, *, real: int) -> list[JobHandle]:
    """
    Return jobs that run for as long as the benchmark does.

    :param real: how many of them do. The others are copies of their records, which name supervisors that live: to
        whoever watches they look the same, and a machine that is small can have a thousand.
    """
    handles = [submit(session, "sleep 86400", job_id=f"running-{number}").handle for number in range(min(real, count))]
    for handle in handles:
        wait(session, handle.job_id, JobState.RUNNING)
    copied = []
    for number in range(count - len(handles)):
        original = handles[number % len(handles)]
        job_id = f"copy-{number}"
        job_dir = Path(original.job_dir).parent / job_id
        shutil.copytree(original.job_dir, job_dir)
        copied.append(JobHandle.from_json({**original.to_json(), "job_id": job_id, "job_dir": str(job_dir)}))
    return handles + copied


def gpu_job_trigger(handle: JobHandle) -> GpuJobTrigger:
    """Return the trigger that a deferrable task defers to; it shows the job's output."""
    return GpuJobTrigger(job=handle.to_json(), reader=READER)


@contextlib.contextmanager
def held_back(session: Cluster, gpus: int) -> Iterator[None]:
    """
    Keep the jobs that are submitted meanwhile in the queue.

    :param gpus: how many GPUs are free.
    """
    blocker = submit(session, "sleep 86400", gpus=gpus, job_id=f"blocker-{next(_blockers)}").handle
    wait(session, blocker.job_id, JobState.RUNNING)
    yield
    session.cancel([blocker.job_id], requested_by="bench")


def ends(session: Cluster, triggerer: Triggerer, handles: Sequence[JobHandle]) -> list[float]:
    """Wait for the triggers of jobs, and return how many seconds after the end of its job each has fired."""
    job_ids = [handle.job_id for handle in handles]
    fired = triggerer.wait_for(job_ids)
    return [
        fired[status.job_id].at - datetime.fromisoformat(str(status.ended_at)).timestamp()
        for status in session.statuses(job_ids)
    ]
