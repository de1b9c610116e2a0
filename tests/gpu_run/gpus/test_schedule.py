"""Who gets which GPUs next: by priority, then first come, with no big job starved and no GPU given twice."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import Gpu
from airflow_provider_gpu_cluster.gpu_run.gpus.schedule import QueuedJob, Slot, plan

HIGH, NORMAL, LOW = 0, 1, 2
NOW = 1000.0


def gpus(count: int, kind: str = "NVIDIA A100-SXM4-80GB", first: int = 0) -> list[Gpu]:
    return [Gpu(f"GPU-{number}", number, kind, 81920) for number in range(first, first + count)]


def free(cards: Sequence[Gpu]) -> list[Slot]:
    return [Slot(gpu, 0, "") for gpu in cards]


def taken(cards: Sequence[Gpu], until: float = math.inf, note: str = "other-job (ann)") -> list[Slot]:
    return [Slot(gpu, until, note) for gpu in cards]


def ticket(
    job_id: str,
    count: int = 1,
    *,
    rank: int = NORMAL,
    submitted: float = 0.0,
    kind: str | None = None,
    limit_s: float | None = None,
    owner: str = "me",
) -> QueuedJob:
    return QueuedJob(job_id, rank, submitted, count, kind, limit_s, owner)


def starts(tickets: Sequence[QueuedJob], slots: Sequence[Slot]) -> dict[str, list[int]]:
    found, _ = plan(tickets, slots, NOW)
    return {ticket.job_id: [gpu.number for gpu in cards] for ticket, cards in found.items()}


def why(tickets: Sequence[QueuedJob], slots: Sequence[Slot], job_id: str) -> tuple[int, str]:
    _, waits = plan(tickets, slots, NOW)
    return next((wait.place, wait.why) for ticket, wait in waits.items() if ticket.job_id == job_id)


def test_higher_priority_goes_first_then_who_came_first() -> None:
    queue = [
        ticket("late-normal", submitted=3),
        ticket("low", rank=LOW, submitted=0),
        ticket("early-normal", submitted=2),
        ticket("high", rank=HIGH, submitted=9),
    ]
    assert starts(queue, free(gpus(3))) == {"high": [0], "early-normal": [1], "late-normal": [2]}


def test_a_big_job_keeps_free_gpus_from_small_ones_behind_it() -> None:
    slots = free(gpus(3)) + taken(gpus(1, first=3))
    queue = [ticket("big", 4, submitted=1), ticket("small", 1, submitted=2)]
    assert starts(queue, slots) == {}
    assert why(queue, slots, "big") == (1, "it needs 4 GPUs; of 4 there are 3 free, 1 with other-job (ann)")
    assert why(queue, slots, "small") == (
        2,
        "it needs 1 GPU; of 4 there are 3 free but kept for jobs ahead, 1 with other-job (ann)",
    )


def test_a_later_job_slips_in_only_if_it_is_over_before_the_one_ahead_could_start() -> None:
    slots = free(gpus(2)) + taken(gpus(2, first=2), until=NOW + 100)
    big = ticket("big", 4, submitted=1)
    assert starts([big, ticket("short", 1, submitted=2, limit_s=100)], slots) == {"short": [0]}
    assert starts([big, ticket("long", 1, submitted=2, limit_s=101)], slots) == {}
    assert starts([big, ticket("endless", 1, submitted=2)], slots) == {}


def test_who_slips_in_minds_the_first_of_those_ahead() -> None:
    slots = free(gpus(1)) + taken(gpus(1, first=1), until=NOW + 30) + taken(gpus(1, first=2), until=NOW + 50)
    ahead = [ticket("at-30", 2, submitted=1), ticket("at-50", 3, submitted=2)]
    assert starts([*ahead, ticket("short", submitted=3, limit_s=30)], slots) == {"short": [0]}
    assert starts([*ahead, ticket("longer", submitted=3, limit_s=40)], slots) == {}


def test_nobody_slips_in_where_nobody_knows_when_gpus_come_free() -> None:
    slots = free(gpus(2)) + taken(gpus(2, first=2))
    assert starts([ticket("big", 4, submitted=1), ticket("short", 1, submitted=2, limit_s=1)], slots) == {}


def test_only_gpus_of_the_wanted_type_are_given_and_kept() -> None:
    slots = taken(gpus(1, "NVIDIA H100 80GB HBM3")) + free(gpus(2, "Tesla V100-SXM2-16GB", first=1))
    queue = [ticket("wants-h100", kind="h100", submitted=1), ticket("wants-any", 2, submitted=2)]
    assert starts(queue, slots) == {"wants-any": [1, 2]}
    assert why(queue, slots, "wants-h100")[1] == "it needs 1 h100 GPU; of 1 there are 0 free, 1 with other-job (ann)"


def test_a_job_whose_gpus_have_vanished_holds_up_nobody() -> None:
    queue = [ticket("big", 4, submitted=1), ticket("small", 2, submitted=2)]
    assert starts(queue, free(gpus(2))) == {"small": [0, 1]}
    assert why(queue, free(gpus(2)), "big") == (1, "it needs 4 GPUs; this host has 2 now")


def test_two_controllers_may_have_a_job_of_the_same_id() -> None:
    mine, theirs = ticket("train", 3, submitted=1, owner="me"), ticket("train", 1, submitted=2, owner="them")
    found, _ = plan([mine, theirs], free(gpus(4)), NOW)
    assert {owner.owner: len(cards) for owner, cards in found.items()} == {"me": 3, "them": 1}


def test_an_overdue_job_lets_nobody_slip_in() -> None:
    slots = free(gpus(1)) + taken(gpus(1, first=1), until=math.inf)
    assert starts([ticket("big", 2, submitted=1), ticket("short", submitted=2, limit_s=0.1)], slots) == {}


def test_the_plan_for_thousands_is_quick() -> None:
    slots = taken(gpus(4)) + free(gpus(4, "NVIDIA H100", first=4))
    queue = [ticket(f"job-{number}", 8, submitted=number, kind=None, limit_s=60) for number in range(5000)]
    began = time.perf_counter()
    plan(queue, slots, NOW)
    assert time.perf_counter() - began < 20


tickets = st.builds(
    QueuedJob,
    job_id=st.uuids().map(str),
    rank=st.integers(0, 2),
    submitted=st.integers(0, 20).map(float),
    gpus=st.integers(1, 6),
    gpu_type=st.sampled_from([None, None, "A100", "H100"]),
    time_limit_s=st.one_of(st.none(), st.integers(1, 50).map(float)),
    owner=st.just("me"),
)
cards = st.lists(st.sampled_from(["NVIDIA A100", "NVIDIA H100"]), min_size=1, max_size=6).map(
    lambda kinds: [Gpu(f"GPU-{number}", number, kind, 0) for number, kind in enumerate(kinds)]
)
free_at = st.sampled_from([0.0, NOW + 10, NOW + 30, math.inf])
slot_lists = cards.flatmap(
    lambda found: st.tuples(*(st.builds(Slot, st.just(gpu), free_at, st.just("x")) for gpu in found))
)


@settings(max_examples=150, database=None, deadline=None)
@given(st.lists(tickets, max_size=12), slot_lists)
def test_every_job_gets_what_it_asks_for_or_waits_and_no_gpu_goes_twice(
    queue: list[QueuedJob], slots: Sequence[Slot]
) -> None:
    found, waits = plan(queue, slots, NOW)
    assert set(found) | set(waits) == set(queue)
    assert not set(found) & set(waits)
    given_away = [gpu.key for cards in found.values() for gpu in cards]
    assert len(given_away) == len(set(given_away))
    assert set(given_away) <= {slot.gpu.key for slot in slots if slot.free_at <= NOW}
    for one, cards in found.items():
        assert len(cards) == one.gpus
        assert all(gpu.is_a(one.gpu_type) for gpu in cards)
    assert [wait.place for wait in waits.values()] == list(range(1, len(waits) + 1))


def simulate(cards: Sequence[Gpu], queue: Sequence[QueuedJob]) -> dict[QueuedJob, float]:
    """
    Return when each job starts, if all wait from the beginning and every job runs exactly as long as its time limit.
    """
    began: dict[QueuedJob, float] = {}
    until = {gpu.key: 0.0 for gpu in cards}
    moments = [0.0]
    while moments:
        now = heapq.heappop(moments)
        slots = [Slot(gpu, 0 if until[gpu.key] <= now else until[gpu.key], "") for gpu in cards]
        found, _ = plan([one for one in queue if one not in began], slots, now)
        for one, given_now in found.items():
            began[one] = now
            end = math.inf if one.time_limit_s is None else now + one.time_limit_s
            for gpu in given_now:
                assert until[gpu.key] <= now
                until[gpu.key] = end
            if end < math.inf:
                heapq.heappush(moments, end)
    return began


def in_order(draft: Sequence[tuple[int, float | None, str | None]]) -> list[QueuedJob]:
    return [
        ticket(f"job-{number}", count, submitted=number, limit_s=limit, kind=kind)
        for number, (count, limit, kind) in enumerate(draft)
    ]


limits = st.sampled_from([None, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0])
queues = st.lists(st.tuples(st.integers(1, 4), limits, st.sampled_from([None, "A100", "H100"])), max_size=9).map(
    in_order
)


@settings(max_examples=400, database=None, deadline=None)
@given(queues, cards)
def test_whoever_comes_behind_never_delays_anybody_ahead(queue: list[QueuedJob], found: Sequence[Gpu]) -> None:
    everyone = simulate(found, queue)
    for count in range(1, len(queue)):
        alone = simulate(found, queue[:count])
        for one in queue[:count]:
            assert everyone.get(one, math.inf) <= alone.get(one, math.inf)


@settings(max_examples=100, database=None, deadline=None)
@given(queues, st.integers(1, 4))
def test_nobody_starves(queue: list[QueuedJob], count: int) -> None:
    limited = [one._replace(time_limit_s=one.time_limit_s or 5.0, gpu_type=None) for one in queue]
    assert set(simulate(gpus(count), limited)) == {one for one in limited if one.gpus <= count}


def test_a_gap_that_one_waiting_job_does_not_fit_into_is_open_to_the_next() -> None:
    """Three GPUs are busy for 100 s and two are wanted: one is free until then, for who is done by then."""
    slots = [Slot(Gpu(f"g{number}", number, "virtual", 0), 100.0 if number else 0.0, "") for number in range(4)]
    wide = QueuedJob("wide", 1, 1.0, 2, None, None, "x")
    endless = QueuedJob("endless", 1, 2.0, 1, None, None, "x")
    short = QueuedJob("short", 1, 3.0, 1, None, 10.0, "x")
    long = QueuedJob("long", 1, 4.0, 1, None, 1000.0, "x")
    starts, waits = plan([wide, endless, short, long], slots, 1.0)
    assert set(starts) == {short}
    assert set(waits) == {wide, endless, long}


def test_a_long_job_that_cannot_slip_in_keeps_no_short_one_from_it_at_the_time_of_a_real_clock() -> None:
    now = 1.8e9
    slots = free(gpus(1)) + taken(gpus(1, first=1), until=now + 1000)
    queue = [ticket("big", 2, limit_s=60, submitted=1), ticket("long", limit_s=5000, submitted=2)]
    short = ticket("short", limit_s=500, submitted=3)
    found, waits = plan([*queue, short], slots, now)
    assert set(found) == {short}
    assert set(waits) == set(queue)
