"""
A hundred jobs in a pool of three clusters with 8, 4 and 2 GPUs: how long they take, beside what is possible.

Possible is the work divided by all GPUs. First they are launched by calls of the hook, sixteen at once, and then by a
real Airflow, as mapped tasks that wait in the triggerer. That needs time for each task instance, and shares the
processors with the clusters here. The first argument is how long a job takes, in seconds; ``hook`` as the second leaves
Airflow out.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.sandbox import Sandbox
from airflow_provider_gpu_cluster.sandbox.cluster import SandboxCluster
from tests.servers.airflow import WholeAirflow

GPUS = [8, 4, 2]
JOBS = 100
JOB_S = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
TIMEOUT_S = 1800
CALLS_AT_ONCE = 16
_own = threading.local()


def main() -> None:
    # What each choice says would be most of what is printed.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for name, conn_id in {"hook, pool": "gpu_cluster_pool", "hook, first": "gpu01"}.items():
        with Sandbox(gpus=GPUS) as sandbox:
            os.environ.update(sandbox.environ())
            began = time.monotonic()
            with ThreadPoolExecutor(CALLS_AT_ONCE) as threads:
                handles = list(threads.map(partial(_submit, conn_id), range(JOBS)))
            launched_s = time.monotonic() - began
            _wait(handles)
            _tell(name, sandbox, launched_s, "all were launched in")
    if sys.argv[2:] == ["hook"]:
        return
    with tempfile.TemporaryDirectory() as folder:
        for dag_id in ("bench_pool", "bench_pool_first"):
            with Sandbox(gpus=GPUS) as sandbox:
                os.environ.update(sandbox.environ())
                log = Path(folder, f"{dag_id}.log")
                with WholeAirflow(Path(__file__).parent / "dags", _environ(sandbox), log) as airflow:
                    run_s = _run(airflow, dag_id)
                _tell(dag_id, sandbox, run_s, "the DAG run took")


def _submit(conn_id: str, number: int) -> dict[str, Any]:
    # Each thread keeps its connections.
    if getattr(_own, "conn_id", None) != conn_id:
        _own.conn_id, _own.hook = conn_id, GpuClusterHook(conn_id)
    handle: dict[str, Any] = _own.hook.submit(job_id=f"bench-{number}", command=f"sleep {JOB_S}", gpus=1, time_limit=30)
    return handle


def _wait(handles: list[dict[str, Any]]) -> None:
    for conn_id in {handle["gpu_cluster_conn_id"] for handle in handles}:
        with GpuClusterHook(conn_id) as hook:
            own = [handle for handle in handles if handle["gpu_cluster_conn_id"] == conn_id]
            while not all(status.final for status in hook.statuses(own)):
                time.sleep(0.5)


def _run(airflow: WholeAirflow, dag_id: str) -> float:
    airflow.trigger(dag_id, "bench", conf={"seconds": JOB_S})
    with airflow.waiting(dag_id, TIMEOUT_S) as ticks:
        for _ in ticks:
            run = airflow.get(f"/dags/{dag_id}/dagRuns/bench")
            if run["state"] in ("success", "failed"):
                break
    assert run["state"] == "success", f"{dag_id} ended as {run['state']}"
    began, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()


def _tell(name: str, sandbox: Sandbox, seconds: float, of_what: str) -> None:
    times = [_times(cluster) for cluster in sandbox.clusters]
    everything = [time for of_one in times for time in of_one]
    assert len(everything) == JOBS, f"{len(everything)} jobs have run"
    work_s = sum((ended - started).total_seconds() for started, ended in everything)
    first, last = min(started for started, _ in everything), max(ended for _, ended in everything)
    makespan_s, ideal_s = (last - first).total_seconds(), work_s / sum(GPUS)
    gpus = sandbox.clusters[0].gpus if name.endswith("first") else sum(GPUS)
    shares = ", ".join(
        f"{cluster.conn_id} {len(of_one)}" for cluster, of_one in zip(sandbox.clusters, times, strict=True)
    )
    print(
        f"{name}: {JOBS} jobs of {JOB_S:g} s on {gpus} GPUs, from the first start to the last end {makespan_s:.1f} s\n"
        f"  that is {makespan_s / ideal_s:.2f} times the work over {sum(GPUS)} GPUs ({ideal_s:.1f} s)\n"
        f"  {of_what} {seconds:.1f} s; jobs: {shares}",
        flush=True,
    )


def _times(cluster: SandboxCluster) -> list[tuple[datetime, datetime]]:
    """Return when each job of a cluster has started and ended."""
    job_ids = [path.name for path in cluster.root_dir.glob("bench*")]
    if not job_ids:
        return []
    with GpuClusterHook(cluster.conn_id) as hook:
        found = hook.statuses(job_ids)
    return [
        (datetime.fromisoformat(status.started_at), datetime.fromisoformat(status.ended_at))
        for status in found
        if status.started_at is not None and status.ended_at is not None
    ]


def _environ(sandbox: Sandbox) -> dict[str, str]:
    return {
        **sandbox.environ(),
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "200",
    }


if __name__ == "__main__":
    main()
