"""The DAG run of a job of five seconds, beside SSHRemoteJobOperator in the same Airflow."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from benchmarks.measure import Bench, bench, line
from tests.real_sshd import login

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from whole_airflow import WholeAirflow  # type: ignore[import-not-found]

RUNS = 5
DAGS = ("bench_steps", "bench_one_task", "bench_ssh_remote_job")
JOB_S = 5.0
TIMEOUT_S = 120


def main() -> None:
    with bench(gpus=4) as cluster:
        log = cluster.folder / "airflow.log"
        with WholeAirflow(Path(__file__).parent / "dags", _environ(cluster), log, port=18080) as airflow:
            times: dict[str, list[float]] = {dag_id: [] for dag_id in DAGS}
            # The first run of each is not counted.
            for number in range(RUNS + 1):
                for dag_id in DAGS:
                    seconds = _run(airflow, dag_id, f"bench_{number}")
                    if number:
                        times[dag_id].append(seconds)
    for dag_id, mine in times.items():
        line(dag_id, mine)
    rival = sorted(times["bench_ssh_remote_job"])[RUNS // 2] - JOB_S
    for dag_id in DAGS[:2]:
        over = sorted(times[dag_id])[RUNS // 2] - JOB_S
        print(f"{dag_id}: {over:.1f} s over the job's own {JOB_S:.0f} s, the rival {rival:.1f} s: {over / rival:.2f}x")


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
    keys = {"private_key": cluster.sshd.client_key, "host_key": cluster.sshd.host_key}
    where = {"host": cluster.sshd.host, "port": cluster.sshd.port, "login": login()}
    ours = {
        **keys,
        "root_dir": cluster.settings.root_dir,
        "lease_dir": cluster.settings.lease_dir,
        "virtual_gpus": cluster.settings.virtual_gpus,
    }
    return {
        "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT": json.dumps({"conn_type": "gpu_cluster", **where, "extra": ours}),
        "AIRFLOW_CONN_BENCH_SSH": json.dumps({"conn_type": "ssh", **where, "extra": keys}),
        # As in a stock Airflow.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
        "BENCH_RESULTS": str(cluster.folder / "results"),
    }


if __name__ == "__main__":
    main()
