"""How much output goes through one watcher, and whether a flood of it delays the ends of other jobs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from airflow.triggers.base import BaseTrigger

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition, LogRelay
from benchmarks.measure import Bench, bench
from benchmarks.output_taker import output_taker
from benchmarks.rival import remote_job_trigger, start_remote_jobs
from benchmarks.triggerer import Triggerer
from benchmarks.waiting_jobs import ends, gpu_job_trigger, held_back
from tests.harness.jobs import submit, wait

LINE = "step 12345/99999  loss 0.123456  lr 0.000100  1234.5 tokens/s  gpu 12.3 GB  eta 01:02"
OUTPUT_MB = 100
FLOOD_MB = 200
FLOOD_S = 5
OTHERS = 20
RIVAL_S = 20.0


def main() -> None:
    output_mb, flood_mb = [int(word) for word in sys.argv[1:]] or (OUTPUT_MB, FLOOD_MB)
    print(f"lines of {len(LINE) + 1} bytes")
    with bench(gpus=OTHERS + 1) as cluster, cluster.cluster() as session:
        for jobs in (1, 10):
            _throughput(cluster, session, jobs, output_mb)
        _rival_throughput(cluster, output_mb)
        _relay(output_mb)
        print(f"\n{OTHERS} jobs end while another floods: from the end of each to its trigger's event")
        _ends(cluster, session, "no flood", output_taker, 0)
        _ends(cluster, session, f"{flood_mb} MB, taken as fast as they come", output_taker, flood_mb)
        _ends(cluster, session, f"{flood_mb} MB, shown by GpuJobTrigger", gpu_job_trigger, flood_mb)


def _print_rate(what: str, lines: float, seconds: float) -> None:
    per_s = lines / seconds
    print(f"{what:<58} {per_s:>10,.0f} lines/s {per_s * (len(LINE) + 1) / 1e6:>8.2f} MB/s", flush=True)


def _prints(megabytes: float) -> str:
    return f"head -n {int(megabytes * 1e6 / (len(LINE) + 1))} < <(yes '{LINE}')"


def _floods(megabytes: int) -> str:
    """Return a command that prints so much in some seconds."""
    pieces = 10 * FLOOD_S
    return f"{_prints(megabytes / pieces)} > piece; for i in $(seq {pieces}); do cat piece; sleep 0.1; done"


def _throughput(cluster: Bench, session: Cluster, jobs: int, megabytes: int) -> None:
    handles = [
        submit(session, _prints(megabytes / jobs), job_id=f"output-{jobs}-{number}").handle for number in range(jobs)
    ]
    for handle in handles:
        wait(session, handle.job_id, JobState.SUCCEEDED)
    with Triggerer(cluster) as triggerer:
        triggerer.run(map(output_taker, handles))
        fired = triggerer.wait_for(handle.job_id for handle in handles).values()
    began, ended = min(one.payload["began"] for one in fired), max(one.at for one in fired)
    what = f"through one watcher, {megabytes} MB of {jobs} job{'s' if jobs > 1 else ''}"
    _print_rate(what, sum(one.payload["lines"] for one in fired), ended - began)


def _rival_throughput(cluster: Bench, megabytes: int) -> None:
    """See how much of a long log SSHRemoteJobTrigger has shown after a while."""
    jobs = start_remote_jobs(cluster, [f"({_prints(megabytes)}; sleep 86400)"])
    log = cluster.folder / "triggerer.log"
    with Triggerer(cluster) as triggerer:
        already = _lines_in(log)
        triggerer.run(map(remote_job_trigger, jobs))
        while _lines_in(log) == already:
            time.sleep(0.05)
        # Each poll shows a piece; the first is not counted, nor the time before it.
        first, began = _lines_in(log), time.monotonic()
        time.sleep(RIVAL_S + 1)
        _print_rate("SSHRemoteJobTrigger, 1 job", _lines_in(log) - first, time.monotonic() - began)


def _lines_in(log: Path) -> int:
    return log.read_bytes().count(LINE.encode())


def _relay(megabytes: int) -> None:
    """Turn output into lines without anything around it."""
    data = (LINE + "\n").encode() * 380
    size = int(megabytes * 1e6)
    relay = LogRelay(lambda line: None, max_bytes=size)
    running = JobStatus("job", JobState.RUNNING, attempt=1)
    began = time.perf_counter()
    for start in range(0, size, len(data)):
        relay.feed(LogChunk(LogPosition(1, start), data, size, running))
    _print_rate("LogRelay alone, into nothing", relay.lines, time.perf_counter() - began)


def _ends(
    cluster: Bench,
    session: Cluster,
    what: str,
    flood_trigger: Callable[[JobHandle], BaseTrigger],
    megabytes: int,
) -> None:
    """Have jobs end one after the other, and print how late their triggers are."""
    name = f"{megabytes}-{flood_trigger.__name__}"
    with Triggerer(cluster) as triggerer:
        with held_back(session, OTHERS + 1):
            flood = submit(session, _floods(megabytes), job_id=f"flood-{name}").handle
            others = [
                submit(session, f"sleep {0.2 * number + 0.2:.1f}", job_id=f"other-{name}-{number}").handle
                for number in range(OTHERS)
            ]
            triggerer.run([flood_trigger(flood), *map(gpu_job_trigger, others)])
            time.sleep(3)
        late = ends(session, triggerer, others)
        told = triggerer.wait_for([flood.job_id, *(other.job_id for other in others)])
    during = sum(told[other.job_id].at < told[flood.job_id].at for other in others)
    note = f"{during} of {OTHERS} before the flood was over" if megabytes else ""
    print(f"{what:<42} median {statistics.median(late):6.3f} s   max {max(late):6.3f} s   {note}", flush=True)


if __name__ == "__main__":
    main()
