"""DAG runs of one job, and of four and twenty mapped ones, beside SSHRemoteJobOperator in the same Airflow."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.measure import Bench, bench, line
from tests.servers.airflow import WholeAirflow

TIMEOUT_S = 300


@dataclass(frozen=True)
class Comparison:
    """
    DAGs that run the same jobs.

    :param job_s: how long their jobs take, all at once.
    :param runs: how often each is run; the first run is not counted.
    :param floors: DAGs of as many tasks that only wait in the triggerer for as long, or do no more before that than one
        command over SSH: none of the others can be faster.
    """

    ours: tuple[str, ...]
    rival: str
    job_s: float
    runs: int
    floors: tuple[str, ...] = ()


COMPARISONS = (
    Comparison(("bench_steps", "bench_one_task", "bench_deferrable"), "bench_ssh_remote_job", 5.0, runs=5),
    # As many as two processors, which all of Airflow and the cluster share here, can start at about the same time.
    Comparison(("bench_mapped_four",), "bench_mapped_four_ssh_remote_job", 20.0, runs=3),
    Comparison(
        ("bench_mapped",),
        "bench_mapped_ssh_remote_job",
        20.0,
        runs=3,
        floors=("bench_mapped_sleep", "bench_mapped_ssh_sleep"),
    ),
)


def main() -> None:
    with bench(gpus=20) as cluster:
        log = cluster.folder / "airflow.log"
        with WholeAirflow(Path(__file__).parent / "dags", _environ(cluster), log) as airflow:
            for comparison in COMPARISONS:
                _compare(airflow, comparison)


def _compare(airflow: WholeAirflow, comparison: Comparison) -> None:
    dag_ids = (*comparison.ours, comparison.rival, *comparison.floors)
    times: dict[str, list[float]] = {dag_id: [] for dag_id in dag_ids}
    for number in range(comparison.runs + 1):
        for dag_id, mine in times.items():
            seconds = _run(airflow, dag_id, f"bench_{number}")
            if number:
                mine.append(seconds)
    for dag_id, mine in times.items():
        line(dag_id, mine)
    rival = statistics.median(times[comparison.rival]) - comparison.job_s
    for dag_id in (*comparison.ours, *comparison.floors):
        over = statistics.median(times[dag_id]) - comparison.job_s
        print(
            f"{dag_id}: {over:.1f} s over the {comparison.job_s:.0f} s that its jobs take, "
            f"the rival {rival:.1f} s: {over / rival:.2f}x",
            flush=True,
        )


def _run(airflow: WholeAirflow, dag_id: str, run_id: str) -> float:
    airflow.trigger(dag_id, run_id)
    with airflow.waiting(f"{dag_id} {run_id}", TIMEOUT_S) as ticks:
        for _ in ticks:
            run = airflow.get(f"/dags/{dag_id}/dagRuns/{run_id}")
            if run["state"] in ("success", "failed"):
                break
    assert run["state"] == "success", f"{dag_id} {run_id} ended as {run['state']}"
    began, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()


def _environ(cluster: Bench) -> dict[str, str]:
    return {
        **cluster.connections(),
        # As in a stock Airflow.
        "AIRFLOW__CORE__PARALLELISM": "32",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
        "BENCH_RESULTS": str(cluster.folder / "results"),
    }


if __name__ == "__main__":
    main()
