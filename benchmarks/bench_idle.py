"""
The GPU-hours that the idle policy frees, and the busy jobs that it stops: with its own code, and a clock of paper.

How much GPUs are used is as in Weng et al., MLaaS in the Wild, NSDI'22 (the trace of Alibaba's PAI): 34.5 % of the jobs
never use theirs, the median is 1.5 % and the mean 10.5 %. How long jobs run, and on how many GPUs, is as in
:mod:`benchmarks.trace`. The rest is assumed: between these numbers the use is spread evenly over its logarithm, and
jobs that use their GPUs do so in bursts of up to a minute. Nobody heeds a warning, so that only stops free anything.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_gpu_cluster.gpu_run.protocol.idle_policy import CANCEL, IdlePolicy
from benchmarks.trace import STEP_S, trace
from tests.harness.gpu_scripts import HOUR_S, NVIDIA_SMI_S, NVML_S, ScriptedJob, busy_jobs, in_turn, steady

JOBS = 1500
BUSY_SEEDS = 4
POLICY = IdlePolicy(on_idle=CANCEL)
ZERO = 0.345
# Shares of the jobs, and the use in percent up to which they come: a mean of 10.5 over all jobs.
QUANTILES = ((ZERO, 0.05), (0.5, 1.5), (0.8, 14.0), (0.95, 62.0), (1.0, 98.0))
BURST_PERCENT = 90.0
BURSTS_S = (0.2, 60.0)


@dataclass
class Hours:
    """GPU-hours of some jobs."""

    all: float = 0.0
    freed: float = 0.0
    stopped: int = 0
    warned: int = 0
    jobs: int = 0


def main() -> None:
    for driver, driver_s in (("NVML", NVML_S), ("nvidia-smi", NVIDIA_SMI_S)):
        stopped = [job.name for job in _busy() if job.stopped_at(POLICY, driver_s=driver_s) is not None]
        print(
            f"scripted busy jobs of a day, told by {driver}: {len(stopped)} of {len(list(_busy()))} stopped {stopped}"
        )
    _trace()


def _busy() -> Iterator[ScriptedJob]:
    for seed in range(BUSY_SEEDS):
        yield from busy_jobs(seed)


def _trace() -> None:
    chance = random.Random(14)
    groups = {"never used": Hours(), "used less than 5 %": Hours(), "used 5 % and more": Hours()}
    percents = []
    places = [(number + 0.5) / JOBS for number in range(JOBS)]
    chance.shuffle(places)
    for one, place in zip(trace(JOBS, seed=14, arrivals_per_s=1.0), places, strict=True):
        percent = _use(place)
        percents.append(percent)
        hours = one.steps * STEP_S / HOUR_S
        uses = [steady(0.0) if not percent else in_turn(_bursts(chance, percent), hours, works_at=BURST_PERCENT)]
        job = ScriptedJob(f"{percent:.1f} %", uses, hours)
        stopped_at = job.stopped_at(POLICY, seed=one.number)
        group = groups["never used" if not percent else "used less than 5 %" if percent < 5 else "used 5 % and more"]
        group.jobs += 1
        group.all += hours * one.gpus
        group.warned += bool(job.told)
        if stopped_at is not None:
            group.stopped += 1
            group.freed += (hours - stopped_at / HOUR_S) * one.gpus
    mean = sum(percents) / len(percents)
    print(f"{JOBS:,} jobs, used {mean:.1f} % in the mean, {sorted(percents)[JOBS // 2]:.1f} % in the median")
    print(f"{'GPUs':<20} {'jobs':>6} {'warned':>7} {'stopped':>8} {'GPU-hours':>10} {'freed':>8} {'share':>7}")
    whole = Hours()
    for name, group in groups.items():
        _print(name, group)
        for value in ("jobs", "warned", "stopped", "all", "freed"):
            setattr(whole, value, getattr(whole, value) + getattr(group, value))
    _print("all", whole)


def _print(name: str, hours: Hours) -> None:
    share = 100 * hours.freed / hours.all
    counts = f"{hours.jobs:>6} {hours.warned:>7} {hours.stopped:>8}"
    print(f"{name:<20} {counts} {hours.all:>10.1f} {hours.freed:>8.1f} {share:>5.1f} %")


def _use(place: float) -> float:
    """
    Return the use of the GPUs of a job, in percent.

    :param place: which share of all jobs uses its GPUs less.
    """
    if place < ZERO:
        return 0.0
    for (before, low), (until, high) in itertools.pairwise(QUANTILES):
        if place <= until:
            part = (place - before) / (until - before)
            return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return QUANTILES[-1][1]


def _bursts(chance: random.Random, percent: float) -> Iterator[tuple[float, float]]:
    """Return for how long a GPU computes, and then waits, so that it is used so much in the mean."""
    share = min(1.0, percent / BURST_PERCENT)
    low, high = (math.log(value) for value in BURSTS_S)
    while True:
        works = math.exp(chance.uniform(low, high))
        yield works, works * (1 - share) / share * chance.uniform(0.5, 1.5)


if __name__ == "__main__":
    main()
