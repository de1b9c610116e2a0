"""From the end of a job to the event of its trigger, while 1, 10, 100 and 1,000 are waited for; and the rival's."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from airflow_provider_gpu_cluster.cluster import Cluster
from benchmarks.measure import Bench, bench, percentile
from benchmarks.rival import ended_at, remote_job_trigger, start_remote_jobs
from benchmarks.triggerer import Triggerer
from benchmarks.waiting_jobs import ends, gpu_job_trigger, held_back, running_jobs
from tests.harness.jobs import submit

COUNTS = (1, 10, 100, 1000)
# Of a thousand, so many end; the others run on.
ENDING = 200
GPUS = 24
# Of those that run on.
REAL_JOBS = 4
# Five seconds apart at most, so that the rival's polls come at every moment before and after an end.
SHORTEST_S, LONGEST_S = 2.0, 7.0
# With few jobs, they end several times over.
ENDS = 10
RIVAL_COUNTS = (1, 10, 100)
RIVAL_CONNECTS_PER_S = 8
SETTLE_S = 3.0


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or COUNTS
    print(f"{'jobs waited for':<42} {'ends':>5} {'median':>9} {'p99':>9} {'max':>9}")
    for count in counts:
        with bench(gpus=GPUS + REAL_JOBS) as cluster, cluster.cluster() as session, Triggerer(cluster) as triggerer:
            late = [s for number in _rounds(count) for s in _our_ends(session, triggerer, count, number)]
            _print_row(f"{count:>4}, GpuJobTrigger", late)
        if count in RIVAL_COUNTS:
            with bench(gpus=1) as cluster, Triggerer(cluster) as triggerer:
                late = [s for _ in _rounds(count) for s in _rival_ends(cluster, triggerer, count)]
                _print_row(f"{count:>4}, SSHRemoteJobTrigger (every 5 s)", late)


def _rounds(count: int) -> range:
    return range(max(1, ENDS // count))


def _our_ends(session: Cluster, triggerer: Triggerer, count: int, number: int) -> list[float]:
    """Have jobs end while all are waited for, and return how late each trigger was."""
    ending = min(count, ENDING)
    lasting = running_jobs(session, count - ending, real=REAL_JOBS)
    with held_back(session, GPUS + REAL_JOBS - min(REAL_JOBS, len(lasting))):
        handles = [
            submit(session, f"sleep {_duration_s():.2f}", job_id=f"ending-{number}-{index}").handle
            for index in range(ending)
        ]
        triggerer.run(map(gpu_job_trigger, [*lasting, *handles]))
        time.sleep(SETTLE_S)
    return ends(session, triggerer, handles)


def _rival_ends(cluster: Bench, triggerer: Triggerer, count: int) -> Iterator[float]:
    connecting_s = count / RIVAL_CONNECTS_PER_S
    jobs = start_remote_jobs(cluster, [f"sleep {connecting_s + _duration_s():.2f}" for _ in range(count)])
    for job in jobs:
        triggerer.run([remote_job_trigger(job)])
        time.sleep(1 / RIVAL_CONNECTS_PER_S)
    fired = triggerer.wait_for(job.job_id for job in jobs)
    for job in jobs:
        yield fired[job.job_id].at - ended_at(job)


def _duration_s() -> float:
    return random.uniform(SHORTEST_S, LONGEST_S)


def _print_row(what: str, late: Sequence[float]) -> None:
    cells = (statistics.median(late), percentile(late, 99), max(late))
    print(f"{what:<42} {len(late):>5} " + " ".join(f"{cell:>7.3f} s" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
