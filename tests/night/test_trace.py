"""The trace of the benchmarks has the proportions that it names."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.trace import EARLY_STEPS, SOURCES, STEP_S, Source, trace

JOBS = trace(6000, seed=1, arrivals_per_s=0.01)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_jobs_fail_and_last_as_in_its_source(source: Source) -> None:
    jobs = [job for job in JOBS if job.source is source]
    failing = [job for job in jobs if job.fails_at]
    assert len(failing) / len(jobs) == pytest.approx(source.failing, abs=0.03)
    assert sum(job.fails_at <= EARLY_STEPS for job in failing) / len(failing) == pytest.approx(0.5, abs=0.06)
    lasting = statistics.median(job.steps * STEP_S for job in jobs if not job.fails_at)
    assert lasting == pytest.approx(source.median_s, rel=0.1, abs=STEP_S)


def test_a_seed_makes_the_same_trace_again() -> None:
    assert trace(100, seed=7, arrivals_per_s=0.01) == trace(100, seed=7, arrivals_per_s=0.01)
    assert trace(100, seed=7, arrivals_per_s=0.01) != trace(100, seed=8, arrivals_per_s=0.01)
