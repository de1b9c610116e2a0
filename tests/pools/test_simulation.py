"""How long jobs wait in a simulated pool, beside one who knows how long they run."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.pool_simulation import POOL, RIVALS, waits
from benchmarks.pool_trace import HELIOS, PHILLY, PoolTrace, mean_gpus, pool_trace


@pytest.mark.parametrize(("source", "gpus"), [(PHILLY, 1.928), (HELIOS, 3.716)])
def test_a_trace_is_as_the_published_one(source: PoolTrace, gpus: float) -> None:
    jobs = pool_trace(source, 10, seed=1, gpus=sum(POOL.values()), load=0.8, without_limit=0.3)
    assert jobs == pool_trace(source, 10, seed=1, gpus=sum(POOL.values()), load=0.8, without_limit=0.3)
    assert mean_gpus(source) == pytest.approx(gpus, rel=0.05)
    assert statistics.median(job.run_s for job in jobs) == pytest.approx(source.median_s, rel=0.15)
    assert statistics.median(job.gpus for job in jobs) == 1
    assert all(job.limit_s is None or job.limit_s >= job.run_s for job in jobs)
    at_night = sum(job.arrives_s % 86400 < 8 * 3600 for job in jobs)
    assert 0.1 < at_night / len(jobs) < 0.2


@pytest.mark.parametrize(
    ("source", "days", "without_limit", "rival"),
    [(HELIOS, 1.0, 0.0, "round robin"), (PHILLY, 2.0, 0.3, None)],
)
def test_jobs_wait_hardly_longer_than_if_all_run_times_were_known(
    source: PoolTrace, days: float, without_limit: float, rival: str | None
) -> None:
    jobs = pool_trace(source, days, seed=1, gpus=sum(POOL.values()), load=0.8, without_limit=without_limit)
    mean_s = {}
    for name in filter(None, ("soonest", "oracle", rival)):
        make, knows_runs = RIVALS[name]
        mean_s[name] = statistics.fmean(waits(jobs, make(), knows_runs=knows_runs))
    assert mean_s["soonest"] > 0
    assert mean_s["soonest"] <= 1.1 * mean_s["oracle"]
    if rival is not None:
        assert mean_s[rival] > 2 * mean_s["soonest"]
