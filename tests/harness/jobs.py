"""Short ways to launch and follow jobs on a cluster, for tests."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker, PartOfArray, SubmitRequest
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Element, Submission, submit_request
from airflow_provider_gpu_cluster.sources import Source
from tests.harness.patience import PATIENCE_S

_numbers = itertools.count(1)


def record(**changes: Any) -> Asker:
    """Return who asks: one task of one DAG run."""
    who = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "try_number": 1}
    return cast(Asker, {**who, **changes})


def submit(
    cluster: Cluster,
    command: str | None = "true",
    *,
    job_id: str | None = None,
    sources: Sequence[Source] | None = (),
    env: dict[str, str] | None = None,
    request_key: str = "try-1",
    generation: str = "0",
    who: Asker | None = None,
    placement: Placement | None = None,
    **spec: Any,
) -> Submission:
    """Launch a job that runs a shell command."""
    job_spec = JobSpec(**{"command": command, "grace_s": 1.0, "recover": {}, **spec})
    return cluster.submit(
        job_id or f"job-{next(_numbers)}",
        spec=job_spec,
        sources=sources,
        env=env or {},
        run_script=render_run_script(job_spec),
        request_key=request_key,
        generation=generation,
        record=who or record(),
        placement=placement,
    )


def request(command: str = "true", *, job_id: str | None = None, **spec: Any) -> SubmitRequest:
    """Return a request to launch such a job, as a trigger has it."""
    job_spec = JobSpec(**{"command": command, "grace_s": 1.0, "recover": {}, **spec})
    return submit_request(
        job_id or f"job-{next(_numbers)}",
        inputs=[],
        spec=job_spec,
        env={},
        run_script=render_run_script(job_spec),
        request_key="try-1",
        generation="0",
        record=record(),
    )


def submit_array(
    cluster: Cluster,
    command: str | None,
    envs: Sequence[dict[str, str]],
    *,
    job_id: str = "a",
    sources: Sequence[Source] | None = (),
    request_key: str = "try-1",
    generation: str = "0",
    who: Asker | None = None,
    part: PartOfArray | None = None,
    **spec: Any,
) -> Submission:
    """Launch an array of jobs that run a shell command, each with environment variables of its own."""
    job_spec = JobSpec(**{"command": command, "grace_s": 1.0, "recover": {}, **spec})
    run_script = render_run_script(job_spec)
    return cluster.submit(
        job_id,
        spec=job_spec,
        sources=sources,
        env={"COMMON": "yes"},
        run_script=run_script,
        request_key=request_key,
        generation=generation,
        record=who or record(),
        elements=[Element(job_spec, env, run_script) for env in envs],
        part=part,
    )


def wait(cluster: Cluster, job_id: str, *states: JobState, timeout_s: float = PATIENCE_S) -> JobStatus:
    """Return a job's status as soon as it is in one of ``states``; by default, in a final one."""
    deadline = time.monotonic() + timeout_s
    while True:
        before = _records(cluster, job_id)
        status = cluster.statuses([job_id], tail_bytes=2000)[0]
        if status.state in states or (not states and status.final):
            return status
        assert time.monotonic() < deadline, f"{job_id} did not get there in {timeout_s} s: {status}"
        assert not (status.final and states), f"{job_id} has ended: {status}"
        # Each question starts a program on the cluster, so it is asked again when something has happened there.
        again = time.monotonic() + 1
        while time.monotonic() < again and _records(cluster, job_id) == before:
            time.sleep(0.03)


def _records(cluster: Cluster, job_id: str) -> set[Path]:
    """Return which records there are of the attempts of a job, or of an array's elements; clusters are on this host."""
    return set(Path(cluster.settings.root_dir).glob(f"{job_id}*/.job/attempts/*/*"))
