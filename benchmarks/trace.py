"""
A trace of jobs, made by chance in the proportions of three clusters whose traces have been published.

How many jobs fail, and the median and the mean of how long GPU jobs run, are those of ``data/cluster_summary.csv`` in
https://github.com/InternLM/AcmeTrace, which compares them:

- Philly: Jeon et al., Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads, ATC'19;
- Helios: Hu et al., Characterization and Prediction of Deep Learning Workloads in Large-Scale GPU Datacenters, SC'21;
- Seren: Hu et al., Characterization of Large Language Model Development in the Datacenter, NSDI'24.

The rest is assumed: durations are distributed log-normally (by their median and mean) and end at twelve hours; half of
the failures come in the first five minutes, and the others at any moment of the job; jobs arrive, and are preempted
while they run, as Poisson processes do; jobs that users have cancelled there are not cancelled here. The median of the
GPUs is one, as in all three.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

STEP_S = 60.0
"""Work is done in steps of so many seconds of the trace."""
EARLY_STEPS = 5
LONGEST_S = 12 * 3600.0
PREEMPTED_EVERY_S = 4 * 3600.0
"""Mean run time between two preemptions of a job."""


@dataclass(frozen=True)
class Source:
    """
    A published trace.

    :param failing: share of the jobs that fail.
    """

    name: str
    failing: float
    median_s: float
    mean_s: float


SOURCES = (
    Source("Philly", 0.305, 874.0, 18006.0),
    Source("Helios", 0.155, 206.0, 6652.0),
    Source("Seren", 0.429, 122.0, 1414.0),
)


@dataclass(frozen=True)
class TraceJob:
    """
    One job.

    :param arrives_s: when, in seconds of the trace.
    :param steps: how many steps its work takes.
    :param fails_at: the step at which it fails by a fault of its own; 0 for never.
    :param preempted_after: after how many steps, with those run again, it is preempted; more than it may come to.
    """

    number: int
    source: Source
    arrives_s: float
    gpus: int
    steps: int
    fails_at: int
    preempted_after: tuple[int, ...]


def trace(count: int, *, seed: int, arrivals_per_s: float) -> list[TraceJob]:
    """
    Return the jobs of a trace, in the order in which they arrive.

    :param arrivals_per_s: how many arrive in a second of the trace, on average.
    """
    chance = random.Random(seed)
    jobs = []
    arrives_s = 0.0
    for number in range(count):
        source = SOURCES[number % len(SOURCES)]
        arrives_s += chance.expovariate(arrivals_per_s)
        sigma = math.sqrt(2 * math.log(source.mean_s / source.median_s))
        steps = _steps(min(chance.lognormvariate(math.log(source.median_s), sigma), LONGEST_S))
        fails_at = 0
        if chance.random() < source.failing:
            is_early = chance.random() < 0.5
            first, last = (1, EARLY_STEPS) if is_early else (EARLY_STEPS + 1, max(steps, EARLY_STEPS + 1))
            fails_at = chance.randint(first, last)
            steps = max(steps, fails_at)
        gpus = chance.choices((1, 2, 4, 8), (75, 10, 10, 5))[0]
        # Work may have to be done again, and the process goes on meanwhile.
        preempted_after = tuple(_preemptions(chance, until=3 * steps))
        jobs.append(TraceJob(number, source, arrives_s, gpus, steps, fails_at, preempted_after))
    return jobs


def _preemptions(chance: random.Random, *, until: int) -> Iterator[int]:
    ran_s = 0.0
    while (step := _steps(ran_s := ran_s + chance.expovariate(1 / PREEMPTED_EVERY_S))) <= until:
        yield step


def _steps(seconds: float) -> int:
    return max(1, round(seconds / STEP_S))
