"""
A trace of jobs for a pool of clusters, made by chance in the proportions of two clusters whose traces were published.

Median and mean of how long GPU jobs run, and the mean of how many GPUs they have, are those of
``data/cluster_summary.csv`` in https://github.com/InternLM/AcmeTrace, which compares them:

- Philly: Jeon et al., Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads, ATC'19: 112,956
  jobs with 1.928 GPUs on average (median 1), which run for 18,006 s on average (median 874 s) and wait for 3,761 s;
- Helios: Hu et al., Characterization and Prediction of Deep Learning Workloads in Large-Scale GPU Datacenters, SC'21:
  1,580,464 jobs with 3.716 GPUs (median 1), which run for 6,652 s (median 206 s) and wait for 862 s. More than half of
  the jobs have one GPU, and fewer are submitted at night, at noon and in the evening, as it says.

The rest is assumed: durations are distributed log-normally, by their median and mean, and end at three days; the
numbers of GPUs are powers of two with the published means; in an hour of the night comes a third of what comes in one
of the day. Users do not know how long their jobs run: what they ask for is longer by a factor whose inverse is evenly
distributed (as Mu'alem and Feitelson found on several parallel computers, IEEE TPDS 12(6), 2001), rounded up to what
people write (as Tsafrir, Etsion and Feitelson did, Modeling User Runtime Estimates, JSSPP'05).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist

LONGEST_S = 3 * 86400.0
# Of each hour of the day, how much comes in it.
HOURS = (1.0,) * 8 + (3.0,) * 4 + (2.5,) + (3.0,) * 5 + (2.5,) + (3.0,) * 5
# What people write as a time limit, in minutes.
LIMITS_MIN = (5, 10, 15, 30, 60, 120, 240, 480, 720, 1440, 2880, 4320, 7200, 10080)
# The inverse of the factor is at least this.
_LEAST_ACCURACY = 0.05


@dataclass(frozen=True)
class PoolTrace:
    """
    A published trace.

    :param gpus: how many of a hundred jobs have that many GPUs.
    """

    name: str
    median_s: float
    mean_s: float
    gpus: dict[int, float]


PHILLY = PoolTrace("Philly", 874.0, 18006.0, {1: 75.0, 2: 9.0, 4: 9.0, 8: 6.0, 16: 1.0})
HELIOS = PoolTrace("Helios", 206.0, 6652.0, {1: 58.0, 2: 11.0, 4: 10.0, 8: 16.5, 16: 2.5, 32: 1.5, 64: 0.5})


@dataclass(frozen=True)
class PoolJob:
    """
    One job.

    :param arrives_s: when it is launched, in seconds of the trace.
    :param run_s: how long it runs.
    :param limit_s: how long its user lets it run; None if nobody says.
    """

    number: int
    arrives_s: float
    gpus: int
    run_s: float
    limit_s: float | None


def pool_trace(
    source: PoolTrace, days: float, *, seed: int, gpus: int, load: float, without_limit: float = 0.0
) -> list[PoolJob]:
    """
    Return the jobs of some days, in the order in which they arrive.

    :param gpus: how many GPUs there are.
    :param load: how much of what these can do the jobs need.
    :param without_limit: share of the jobs without a time limit.
    """
    chance = random.Random(f"{source.name} {seed}")
    count = round(load * gpus * days * 86400 / _work_s(source))
    hours = [day * 24 + hour for day in range(math.ceil(days)) for hour in range(24) if day * 24 + hour < days * 24]
    in_hours = chance.choices(hours, [HOURS[hour % 24] for hour in hours], k=count)
    arrivals = sorted(3600 * (hour + chance.random()) for hour in in_hours)
    return [_job(source, chance, number, arrives_s, without_limit) for number, arrives_s in enumerate(arrivals)]


def _job(source: PoolTrace, chance: random.Random, number: int, arrives_s: float, without_limit: float) -> PoolJob:
    run_s = _run_s(source, chance)
    limit_s = _limit_s(run_s / chance.uniform(_LEAST_ACCURACY, 1.0))
    (gpus,) = chance.choices(list(source.gpus), list(source.gpus.values()))
    return PoolJob(number, arrives_s, gpus, run_s, None if chance.random() < without_limit else limit_s)


def _run_s(source: PoolTrace, chance: random.Random) -> float:
    return max(1.0, min(chance.lognormvariate(math.log(source.median_s), _sigma(source)), LONGEST_S))


def _limit_s(wanted_s: float) -> float:
    return next((60.0 * minutes for minutes in LIMITS_MIN if 60 * minutes >= wanted_s), 60.0 * LIMITS_MIN[-1])


def mean_gpus(source: PoolTrace) -> float:
    """Return how many GPUs a job has on average."""
    return sum(count * share for count, share in source.gpus.items()) / sum(source.gpus.values())


def _work_s(source: PoolTrace) -> float:
    """Return how many GPU-seconds a job takes on average."""
    # The mean of a log-normal distribution that is cut.
    sigma = _sigma(source)
    end = (math.log(LONGEST_S) - math.log(source.median_s)) / sigma
    normal = NormalDist()
    return mean_gpus(source) * (source.mean_s * normal.cdf(end - sigma) + LONGEST_S * (1 - normal.cdf(end)))


def _sigma(source: PoolTrace) -> float:
    return math.sqrt(2 * math.log(source.mean_s / source.median_s))
