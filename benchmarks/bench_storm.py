"""Many at once: 20 and then 200 submits against one stock sshd, each from a worker of its own; all run exactly once."""

from __future__ import annotations

import json
import statistics
import threading
import time
from datetime import datetime
from pathlib import Path

from airflow_provider_gpu_cluster.jobs.status import JobState
from benchmarks.measure import Bench, bench, line
from tests.harness.jobs import submit

GPUS = 16


def main() -> None:
    for count in (20, 200):
        with bench(gpus=GPUS) as cluster:
            _storm(cluster, count)


def _storm(cluster: Bench, count: int) -> None:
    with cluster.cluster() as session:
        session.capacity()
    runs = cluster.folder / "runs"
    times: dict[int, float] = {}
    errors: list[str] = []
    go = threading.Barrier(count + 1)

    def one(number: int) -> None:
        go.wait()
        began = time.perf_counter()
        try:
            with cluster.cluster() as session:
                submit(session, f"echo {number} >> {runs}", job_id=f"storm-{number}")
            times[number] = time.perf_counter() - began
        except Exception as error:
            errors.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    go.wait()
    for thread in threads:
        thread.join()
    submitted = time.perf_counter() - began
    print(f"-- {count} submits at once (MaxStartups 10:30:100), {GPUS} GPUs")
    print(f"failed: {len(errors)} {errors[:3]}")
    line("submit, from the start of the storm to its handle", list(times.values()))
    print(f"all submitted after {submitted:.1f} s")
    job_ids = [f"storm-{number}" for number in range(count)]
    with cluster.cluster() as session:
        while not all(status.final for status in session.statuses(job_ids)):
            time.sleep(0.2)
        print(f"all ended after {time.perf_counter() - began:.1f} s")
        statuses = session.statuses(job_ids)
    ran = sorted(int(word) for word in runs.read_text().split())
    print(f"succeeded: {sum(status.state is JobState.SUCCEEDED for status in statuses)}")
    print(f"each ran exactly once: {ran == list(range(count))}")
    idle = [_idle_gpu_seconds(Path(cluster.settings.root_dir, job_id)) for job_id in job_ids]
    print(f"GPU-seconds leased and idle, per job: median {statistics.median(idle):.3f}, max {max(idle):.3f}")


def _idle_gpu_seconds(job: Path) -> float:
    """Return what the exit record says a job had leased, less what its code ran."""
    record = json.loads((job / ".job/attempts/1/exit.json").read_text())
    started, ended = (datetime.fromisoformat(record[name]) for name in ("started_at", "ended_at"))
    return float(record["gpu_seconds"]) - (ended - started).total_seconds() * len(record["gpus"])


if __name__ == "__main__":
    main()
