"""When waiting jobs will start, by the rules of the schedule and the time limits of what runs and waits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings

from airflow_provider_gpu_cluster.gpu_run.gpus.forecast import forecast
from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import Gpu
from airflow_provider_gpu_cluster.gpu_run.gpus.schedule import QueuedJob
from tests.gpu_run.gpus.test_schedule import HIGH, LOW, cards, free, gpus, queues, simulate, taken, ticket

# Of a real clock, not of a test's: what is free has been so since the beginning of time.
NOW = 1.8e9
MINE = ticket("mine", 2, submitted=NOW, limit_s=100.0)


@pytest.mark.parametrize(
    ("mine", "ahead", "slots", "start"),
    [
        (MINE, [], free(gpus(4)), 0),
        (MINE, [], free(gpus(1)) + taken(gpus(3, first=1), until=NOW + 60), 60),
        # One of two that it needs never comes free, as far as is known.
        (MINE, [], free(gpus(1)) + taken(gpus(1, first=1)), None),
        (MINE, [ticket("ahead", 4, limit_s=500)], taken(gpus(4), until=NOW + 60), 560),
        (MINE, [ticket("ahead", 4)], taken(gpus(4), until=NOW + 60), None),
        # Nobody of lower priority is before it, whenever they came.
        (MINE, [ticket("low", 4, limit_s=500, rank=LOW)], taken(gpus(4), until=NOW + 60), 60),
        (MINE._replace(rank=LOW), [ticket("low", 4, limit_s=500, rank=LOW)], taken(gpus(4), until=NOW + 60), 560),
        (MINE._replace(rank=HIGH), [ticket("ahead", 4, limit_s=500)], taken(gpus(4), until=NOW + 60), 60),
        # It slips in before a big one that waits for others, and it is over by then or waits behind that one.
        (MINE, [ticket("big", 4, limit_s=500)], free(gpus(2)) + taken(gpus(2, first=2), until=NOW + 100), 0),
        (MINE, [ticket("big", 4, limit_s=500)], free(gpus(2)) + taken(gpus(2, first=2), until=NOW + 99), 599),
        (MINE._replace(gpu_type="h100"), [], taken(gpus(2, "H100"), until=NOW + 9) + free(gpus(2, first=2)), 9),
        (MINE, [ticket("never", 9, limit_s=1.0)], free(gpus(2)), 0),
    ],
)
def test_the_start_of_one(
    mine: QueuedJob, ahead: Sequence[QueuedJob], slots: Sequence[object], start: float | None
) -> None:
    found = forecast([*ahead, mine], slots, NOW, [mine])  # type: ignore[arg-type]
    assert not found.is_cut
    assert found.starts == ({} if start is None else {mine: NOW + start})


@settings(max_examples=200, database=None, deadline=None)
@given(queues, cards)
def test_it_is_what_the_schedule_then_does(queue: list[QueuedJob], found: Sequence[Gpu]) -> None:
    assert forecast(queue, free(found), 0.0, queue).starts == simulate(found, queue)


def test_thousands_are_gone_through_in_a_moment_or_not_to_the_end() -> None:
    kinds = [(1, 60.0), (2, 600.0), (4, 3600.0), (8, 900.0), (1, 7200.0)]
    queue = [
        ticket(f"job-{number}", *kinds[number % 5][:1], submitted=number, limit_s=kinds[number % 5][1])
        for number in range(10_000)
    ]
    began = time.monotonic()
    found = forecast([*queue, MINE], taken(gpus(8), until=NOW + 60), NOW, [MINE], deadline=began + 1.0)
    assert time.monotonic() - began < 20
    assert found.is_cut or found.starts[MINE] > NOW + 1e6
    cut = forecast([*queue, MINE], free(gpus(8)), NOW, [MINE], deadline=-math.inf)
    assert cut.is_cut
    assert cut.starts == {}
