"""
A hundred mapped jobs in a pool of three clusters with 8, 4 and 2 GPUs: how long they take, beside what is possible.

Possible is the work divided by all GPUs. Airflow needs time for each task instance too, and shares the processors with
the clusters here, so the jobs are long enough for that not to be all that is measured.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.sandbox import Sandbox
from airflow_provider_gpu_cluster.sandbox.cluster import SandboxCluster
from tests.servers.airflow import WholeAirflow

GPUS = [8, 4, 2]
JOBS = 100
JOB_S = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
TIMEOUT_S = 1800


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for dag_id in ("bench_pool", "bench_pool_first"):
            with Sandbox(gpus=GPUS) as sandbox:
                os.environ.update(sandbox.environ())
                log = Path(folder, f"{dag_id}.log")
                with WholeAirflow(Path(__file__).parent / "dags", _environ(sandbox), log) as airflow:
                    run_s = _run(airflow, dag_id)
                _tell(dag_id, sandbox, run_s)


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


def _tell(dag_id: str, sandbox: Sandbox, run_s: float) -> None:
    times = [_times(cluster) for cluster in sandbox.clusters]
    everything = [time for of_one in times for time in of_one]
    assert len(everything) == JOBS, f"{len(everything)} jobs have run"
    work_s = sum((ended - started).total_seconds() for started, ended in everything)
    first, last = min(started for started, _ in everything), max(ended for _, ended in everything)
    makespan_s, ideal_s = (last - first).total_seconds(), work_s / sum(GPUS)
    gpus = sandbox.clusters[0].gpus if dag_id.endswith("first") else sum(GPUS)
    shares = ", ".join(
        f"{cluster.conn_id} {len(of_one)}" for cluster, of_one in zip(sandbox.clusters, times, strict=True)
    )
    print(
        f"{dag_id}: {JOBS} jobs of {JOB_S:g} s on {gpus} GPUs, from the first start to the last end {makespan_s:.1f} s\n"
        f"  that is {makespan_s / ideal_s:.2f} times the work over {sum(GPUS)} GPUs ({ideal_s:.1f} s)\n"
        f"  the whole DAG run {run_s:.1f} s; jobs: {shares}",
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
        "AIRFLOW__CORE__PARALLELISM": "32",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "200",
    }


if __name__ == "__main__":
    main()
