"""What it costs to wait for 1, 10, 100 and 1,000 jobs while nothing happens, beside SSHRemoteJobTrigger."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from airflow.triggers.base import BaseTrigger

from benchmarks.measure import Bench, bench
from benchmarks.rival import remote_job_trigger, start_remote_jobs
from benchmarks.triggerer import Triggerer
from benchmarks.usage import Rates, cluster_memory_kb, connections, memory_kb, rates, usage
from benchmarks.waiting_jobs import gpu_job_trigger, running_jobs

COUNTS = (1, 10, 100, 1000)
REAL_JOBS = 20
WINDOW_S = 20.0
SETTLE_S = 6.0
# Each SSHRemoteJobTrigger connects by itself; a stock sshd begins to turn away when ten are at it at once.
CONNECTING_AT_ONCE = 8
CONNECT_S = 90.0
# What fewer jobs need is lost in what a process takes and gives back anyway: a few MB.
MEASURABLE_JOBS = 500


@dataclass(frozen=True)
class Row:
    """
    What N waiting jobs cost.

    :param connections: SSH connections that were open in the end.
    :param job_kb: memory of the triggerer for each job; None where there are too few to tell.
    :param cluster_mb: memory of sshd and all below it.
    :param gone: triggers that did not wait any more in the end.
    """

    connections: int
    rates: Rates
    job_kb: float | None
    cluster_mb: float
    gone: int


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or COUNTS
    with bench(gpus=REAL_JOBS) as cluster, cluster.cluster() as session:
        handles = running_jobs(session, max(counts), real=REAL_JOBS)
        session.close()
        remote_jobs = start_remote_jobs(cluster, ["sleep 86400"] * max(counts))
        before = usage(cluster)
        time.sleep(WINDOW_S)
        alone = rates(before, usage(cluster))
        print(f"{WINDOW_S:.0f} s in which no job ends or prints anything, for each row.")
        print(f"Ours: {REAL_JOBS} jobs run, the others are copies of their records. Theirs all sleep.")
        print(f"The jobs themselves use {alone.jobs_cpu_s:.2f} s of CPU a minute, watched or not; that is left out.\n")
        _print_head()
        for count in counts:
            ours = _measure(cluster, [gpu_job_trigger(handle) for handle in handles[:count]], at_once=count)
            _print_row(count, "GpuJobTrigger", ours)
            theirs = _measure(
                cluster, [remote_job_trigger(job) for job in remote_jobs[:count]], at_once=CONNECTING_AT_ONCE
            )
            _print_row(count, "SSHRemoteJobTrigger", theirs)


def _measure(cluster: Bench, triggers: Sequence[BaseTrigger], *, at_once: int) -> Row:
    """Run triggers in a triggerer of their own and look what they use."""
    with Triggerer(cluster) as triggerer:
        triggerer.run(triggers[:1])
        _wait_for_connections(cluster, 1, time.monotonic() + CONNECT_S)
        time.sleep(SETTLE_S)
        with_one_kb = memory_kb([triggerer.pid])
        deadline = time.monotonic() + CONNECT_S
        started = 1
        for some in _pieces(triggers[1:], at_once):
            triggerer.run(some)
            started += len(some)
            _wait_for_connections(cluster, 1 if at_once == len(triggers) else started, deadline)
        time.sleep(SETTLE_S)
        before = usage(cluster, triggerer.pid)
        time.sleep(WINDOW_S)
        after = usage(cluster, triggerer.pid)
        more_kb = memory_kb([triggerer.pid]) - with_one_kb
        return Row(
            connections(cluster),
            rates(before, after),
            more_kb / (len(triggers) - 1) if len(triggers) >= MEASURABLE_JOBS else None,
            cluster_memory_kb() / 1000,
            triggerer.fired.qsize(),
        )


def _wait_for_connections(cluster: Bench, count: int, deadline: float) -> None:
    while connections(cluster) < count and time.monotonic() < deadline:
        time.sleep(0.05)


def _pieces(triggers: Sequence[BaseTrigger], size: int) -> Iterator[list[BaseTrigger]]:
    rest = iter(triggers)
    while some := list(itertools.islice(rest, size)):
        yield some


def _print_head() -> None:
    print(f"{'':>26}  {'SSH':>6} {'commands':>9} {'CPU s a minute':>17} {'triggerer':>11} {'sshd':>8} {'do not':>8}")
    print(
        f"{'jobs':>5} {'':>20}  {'conns':>6} {'a minute':>9} {'Airflow':>8} {'cluster':>8} "
        f"{'kB a job':>11} {'MB':>8} {'wait':>8}",
        flush=True,
    )


def _print_row(count: int, who: str, row: Row) -> None:
    job_kb = "" if row.job_kb is None else f"{row.job_kb:.1f}"
    print(
        f"{count:>5} {who:>20}  {row.connections:>6} {row.rates.commands:>9.0f} {row.rates.airflow_cpu_s:>8.2f} "
        f"{row.rates.watching_cpu_s:>8.2f} {job_kb:>11} {row.cluster_mb:>8.0f} {row.gone:>8}",
        flush=True,
    )


if __name__ == "__main__":
    main()
