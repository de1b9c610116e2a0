"""Our own transfers, each over a connection of its own, as a task makes them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.sinks import LocalSink
from airflow_provider_gpu_cluster.sources import parse_sources
from benchmarks.measure import CONN_ID, Bench
from tests.harness.jobs import record


def turn_to(cluster: Bench, place: Path) -> Path:
    """
    Let all that follows, also in processes below this one, use a cluster that keeps its jobs in a folder.

    What the worker remembers of files is in that folder, too; where it is empty, nothing is known on either side.

    :return: the folder of the jobs.
    """
    settings = replace(cluster.settings, root_dir=str(place / "ml-jobs"))
    os.environ.update(replace(cluster, settings=settings).connections())
    os.environ["XDG_CACHE_HOME"] = str(place / "worker-cache")
    # The program is brought by the first task of all, which is none that is measured.
    with GpuClusterHook(CONN_ID) as hook:
        hook.capacity()
    return place / "ml-jobs"


def stage(job_id: str, source: Path) -> None:
    """Bring a file or folder to the cluster as the data of a job."""
    with GpuClusterHook(CONN_ID) as hook:
        sources = parse_sources(code=None, data=str(source), models=None, base_dir=source.parent)
        hook.cluster.stage(job_id, sources, record=record())


def collect(job_id: str, destination: Path) -> None:
    """Bring the outputs of a job home."""
    with GpuClusterHook(CONN_ID) as hook:
        hook.cluster.collect(job_id, LocalSink(destination))


def make_job(job_id: str) -> None:
    """Make a job that has no inputs."""
    with GpuClusterHook(CONN_ID) as hook:
        hook.cluster.stage(job_id, (), record=record())
