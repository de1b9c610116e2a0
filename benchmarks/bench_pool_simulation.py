"""How long jobs wait in a pool whose clusters are chosen as the package does, by an oracle, or without any thought."""

from __future__ import annotations

import statistics

from benchmarks.pool_simulation import POOL, RIVALS, waits
from benchmarks.pool_trace import HELIOS, PHILLY, PoolTrace, pool_trace

DAYS = 7
SEEDS = range(3)
LOADS = (0.7, 0.85)
# Those that overload a cluster have queues in which every look takes long.
DAYS_OF_THE_THOUGHTLESS = 2
WITHOUT_LIMIT = 0.3


def main() -> None:
    sizes = ", ".join(f"{name} {gpus}" for name, gpus in POOL.items())
    print(f"GPUs: {sizes}. Mean wait of the jobs of {len(SEEDS)} traces; target: at most 1.10 times that of the oracle")
    for source in (PHILLY, HELIOS):
        for load in LOADS:
            _compare(source, load, days=DAYS, names=("soonest", "oracle"))
        _compare(source, LOADS[0], days=DAYS, names=("soonest", "oracle"), without_limit=WITHOUT_LIMIT)
        _compare(source, LOADS[0], days=DAYS_OF_THE_THOUGHTLESS, names=tuple(RIVALS))


def _compare(
    source: PoolTrace, load: float, *, days: float, names: tuple[str, ...], without_limit: float = 0.0
) -> None:
    traces = [
        pool_trace(source, days, seed=seed, gpus=sum(POOL.values()), load=load, without_limit=without_limit)
        for seed in SEEDS
    ]
    means = {}
    for name in names:
        make, knows_runs = RIVALS[name]
        found = [statistics.fmean(waits(jobs, make(), knows_runs=knows_runs)) for jobs in traces]
        means[name] = statistics.fmean(found)
    without = f", {without_limit:.0%} without a time limit" if without_limit else ""
    print(f"\n{source.name}, {days} days, {len(traces[0]):,} jobs, load {load:.0%}{without}")
    for name, mean_s in means.items():
        print(f"  {name:<18} {mean_s:10,.0f} s   {mean_s / means['oracle']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
