"""
From the end of an attempt to the next one in the queue, and to the start of its code, after a first pause of a second.

Beside it: what Airflow's own retry takes for a job of ``SSHRemoteJobOperator`` that has failed, with a ``retry_delay``
of zero instead of the five minutes that it is by default.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.gpu_run.protocol import DEFAULT_RECOVER
from airflow_provider_gpu_cluster.jobs.status import JobState
from benchmarks.bench_slurm import slurm_bench
from benchmarks.measure import Bench, bench, line
from tests.harness.jobs import submit, wait
from tests.servers.airflow import WholeAirflow
from tests.servers.slurm import RealSlurm

RUNS = 11
PAUSE_S = 1.0
SAVE = 'touch "$CHECKPOINT_DIR/saved"'
RIVAL = "bench_again_ssh_remote_job"

# Ends an attempt, and returns when that was, if its exit record does not say so.
Blow = Callable[[Cluster, Path], float | None]


def main() -> None:
    with bench(gpus=4) as cluster:
        with cluster.cluster() as session:
            _recoveries("host, exit code 85", session, f"{SAVE}; exit 85")
            _recoveries("host, preempted", session, f"{SAVE}; exec sleep 600", _preempt)
            _recoveries("host, supervisor killed", session, f"{SAVE}; exec sleep 600", _kill_supervisor)
        _rival(cluster)
    with slurm_bench() as (on_slurm, slurm, _), on_slurm.cluster() as session:
        _recoveries("Slurm, exit code 85", session, f"{SAVE}; exit 85")
        _recoveries(
            "Slurm, preempted by it", session, f"{SAVE}; exec sleep 600", _preempted_by(slurm), partition="scavenger"
        )


def _recoveries(what: str, session: Cluster, first: str, blow: Blow | None = None, **spec: Any) -> None:
    """Let the first attempt of some jobs end, one after the other, and print how soon the second one follows."""
    queued, started = [], []
    for number in range(RUNS):
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{what}-{number}")
        command = f'[ "$ATTEMPT" = 2 ] && exit 0; {first}'
        handle = submit(session, command, job_id=name, recover=DEFAULT_RECOVER, **spec).handle
        job_dir = Path(handle.job_dir)
        ended_at = None
        if blow is not None:
            wait(session, name, JobState.RUNNING)
            _until((job_dir / "outputs/checkpoints/saved").exists)
            ended_at = blow(session, job_dir)
        wait(session, name)
        first_end, second_end = (_record(job_dir, attempt) for attempt in (1, 2))
        ended_at = ended_at or datetime.fromisoformat(first_end["ended_at"]).timestamp()
        queued.append(_queued_at(job_dir / ".job/attempts/2") - ended_at)
        started.append(datetime.fromisoformat(second_end["started_at"]).timestamp() - ended_at)
    line(f"{what}: to the next attempt in the queue", queued)
    line(f"{what}: to the start of its code ({PAUSE_S:.0f} s of it a pause)", started)


def _preempt(session: Cluster, job_dir: Path) -> None:
    session.interrupt_job(job_dir.name, kind="preempted", requested_by="bench")


def _preempted_by(slurm: RealSlurm) -> Blow:
    def preempt(session: Cluster, job_dir: Path) -> None:
        slurm.run(
            "sbatch", "--nodes=2", "--gres=gpu:4", "-o/dev/null", standard_input="#!/bin/sh\nsleep 3\n", check=True
        )

    return preempt


def _kill_supervisor(_: Cluster, job_dir: Path) -> float:
    claim = json.loads((job_dir / ".job/attempts/1/claim.json").read_text())
    os.kill(claim["pid"], signal.SIGKILL)
    return time.time()


def _queued_at(attempt: Path) -> float:
    """Return since when an attempt waits: on Slurm since it was given to Slurm, on a host since it exists."""
    events = map(json.loads, (attempt / "events.jsonl").read_text().splitlines())
    submitted = [event["at"] for event in events if event["event"] == "submitted"]
    return datetime.fromisoformat(submitted[0]).timestamp() if submitted else (attempt / "request.json").stat().st_mtime


def _record(job_dir: Path, attempt: int) -> dict[str, str]:
    record: dict[str, str] = json.loads((job_dir / f".job/attempts/{attempt}/exit.json").read_text())
    return record


def _until(check: Callable[[], bool]) -> None:
    while not check():
        time.sleep(0.02)


def _rival(cluster: Bench) -> None:
    marks = cluster.folder / "marks"
    environ = {**cluster.connections(), "BENCH_MARKS": str(marks), "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5"}
    with WholeAirflow(Path(__file__).parent / "dags", environ, cluster.folder / "airflow.log") as airflow:
        airflow.trigger(RIVAL, "again")
        with airflow.waiting(RIVAL, 600) as ticks:
            for _ in ticks:
                if airflow.state(RIVAL, "again") in ("success", "failed"):
                    break
    times = [float(mark) for mark in marks.read_text().split()]
    # Begin and end by turns: from each end to the next begin.
    line(
        "SSHRemoteJobOperator, failed: to the start of its code", [b - a for a, b in itertools.pairwise(times[1:])][::2]
    )


if __name__ == "__main__":
    main()
