"""Which cluster is chosen, why, and what is told when none can be."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    InvalidJobError,
    NoClusterFitsError,
)
from airflow_provider_gpu_cluster.pools.choice import (
    BUILD_S,
    TYPICAL_BYTES_PER_S,
    TYPICAL_RUN_S,
    UNTOLD_START_S,
    choose,
    start_s,
    whole_wait_s,
)
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.pool import CHEAPEST, IN_ORDER, SOONEST


def offer(
    name: str, starts_in_s: float | None = 0.0, *, weight: float = 1.0, price: float | None = None, **of: Any
) -> Offer:
    """Return an offer of a cluster that fits and has the inputs."""
    values = {"fits": True, "missing_bytes": 0, "send_s": 0.0, **of}
    return Offer(Member(name, weight), starts_in_s=starts_in_s, price_per_gpu_hour=price, **values)


SILENT = Offer(Member("silent"), False, "no answer within 4 s", answered=False)
SMALL = Offer(Member("small"), False, "it needs 8 GPUs, and this host has 2", gpus=2)
FULL_DISK = Offer(Member("full"), False, "its disk is full", is_passing=True)


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        pytest.param([offer("a", 600), offer("b", 60), offer("c", 3600)], "b", id="the first start"),
        pytest.param([offer("a", 600), SILENT, SMALL, FULL_DISK], "a", id="only what answers and fits"),
        pytest.param([offer("a", 0, send_s=900.0), offer("b", 600)], "b", id="inputs that take longer than the queue"),
        pytest.param(
            [offer("a", 0, missing_bytes=int(900 * TYPICAL_BYTES_PER_S), send_s=None), offer("b", 600)],
            "b",
            id="a speed that nobody knows",
        ),
        pytest.param(
            [offer("a", 0, is_environment_built=False), offer("b", 60, is_environment_built=True)],
            "b",
            id="an environment that is built",
        ),
        pytest.param(
            [offer("a", 0, is_environment_built=False), offer("b", BUILD_S + 60)],
            "a",
            id="an environment that is built sooner than another starts",
        ),
        pytest.param([offer("a", 600), offer("b", 900, weight=2)], "b", id="a weight divides the wait"),
        pytest.param([offer("a"), offer("b", weight=2)], "b", id="a weight among equals"),
        pytest.param(
            [offer("a"), offer("b", price=2.0), offer("c", price=1.0, weight=0.1)],
            "c",
            id="a price among equals comes before a weight",
        ),
        pytest.param([offer("a"), offer("b")], "a", id="the order among equals"),
        pytest.param([offer("a", 600.3, price=2), offer("b", 600.1, price=3)], "a", id="less than a second is nothing"),
        pytest.param([offer("a", None, free_gpus=8, gpus=8), offer("b", 0)], "b", id="now is before what is not told"),
        pytest.param(
            [offer("a", None, free_gpus=8, gpus=8), offer("b", 0, send_s=3600.0)], "b", id="even if it has to send"
        ),
        pytest.param(
            [offer("a", None, free_gpus=8, gpus=8, weight=1000), offer("b", 0, send_s=3600.0)],
            "b",
            id="and whatever the weight",
        ),
        pytest.param(
            [offer("a", None, free_gpus=0, gpus=8, waiting=16), offer("b", 1800)],
            "b",
            id="a long line of which nothing is told",
        ),
        pytest.param(
            [offer("a", None, free_gpus=8, gpus=8, waiting=0), offer("b", 1800)], "a", id="free GPUs without a line"
        ),
        pytest.param(
            [offer("a", None, gpus=8, needs_gpus=8), offer("b", None, gpus=64, needs_gpus=8)],
            "b",
            id="more GPUs end more often",
        ),
    ],
)
def test_soonest(offers: list[Offer], chosen: str) -> None:
    choice = choose(offers)
    assert (choice.offer.conn_id, choice.offers) == (chosen, tuple(offers))


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        pytest.param(
            [offer("a", 0, price=2), offer("b", 7200, price=1)], "b", id="the lowest price, however long the wait"
        ),
        pytest.param([offer("a"), offer("b", 7200, price=9.0)], "b", id="a price that is not known comes last"),
        pytest.param([offer("a", 600, price=1), offer("b", 60, price=1)], "b", id="the soonest of the cheapest"),
        pytest.param([offer("a", 600), offer("b", 60)], "b", id="without prices"),
        pytest.param([offer("a", 600, price=0.0), offer("b", 60, price=0.5)], "a", id="nothing is a price"),
        pytest.param([SMALL, SILENT, offer("a", price=9)], "a", id="only what answers and fits"),
    ],
)
def test_cheapest(offers: list[Offer], chosen: str) -> None:
    assert choose(offers, CHEAPEST).offer.conn_id == chosen


def test_in_order_takes_the_first_that_answers_and_fits_even_if_the_job_waits() -> None:
    assert choose([SILENT, SMALL, offer("a", 7200), offer("b", 0)], IN_ORDER).offer.conn_id == "a"


def test_what_nobody_tells_is_estimated_soberly() -> None:
    assert start_s(offer("a", None)) == TYPICAL_RUN_S
    assert start_s(offer("a", None, free_gpus=2, gpus=4, needs_gpus=2)) == UNTOLD_START_S
    assert start_s(offer("a", None, free_gpus=2, gpus=4, needs_gpus=2, waiting=3)) == 3 * TYPICAL_RUN_S / 2
    assert start_s(offer("a", None, free_gpus=0, gpus=4, needs_gpus=2, waiting=3)) == 4 * TYPICAL_RUN_S / 2
    assert start_s(offer("a", None, waiting=3, likely_in_s=700.0)) == 700
    assert whole_wait_s(offer("a", 10, send_s=20.0, is_environment_built=False)) == 30 + BUILD_S
    assert math.isfinite(whole_wait_s(offer("a", None, gpus=0, needs_gpus=0, waiting=0)))


@pytest.mark.parametrize(
    ("offers", "policy", "why"),
    [
        ([offer("a", 60), offer("b", 3600)], SOONEST, "it is ready first (in 1 min; b in 1 h)"),
        ([offer("a", 0), offer("b", None)], SOONEST, "it is ready first (at once; b in 1 h, by an estimate)"),
        ([offer("a", 60), offer("b", 3600, weight=2)], SOONEST, "; their weights are 1 and 2)"),
        ([offer("a"), offer("b")], SOONEST, "it and b are ready first (at once), and it comes first in the pool"),
        ([offer("a"), offer("b"), offer("c")], SOONEST, "it and 2 others are ready first (at once)"),
        ([offer("a", price=1), offer("b")], SOONEST, "and it is the cheapest"),
        ([offer("a", weight=3), offer("b")], SOONEST, "and it has the weight 3"),
        ([offer("a"), SMALL], SOONEST, "no other cluster of the pool has answered that it can run it"),
        ([offer("a", price=1), offer("b", price=2)], CHEAPEST, "it is the cheapest that can run it"),
        (
            [offer("a", 60, price=1), offer("b", 600, price=1)],
            CHEAPEST,
            "of the cheapest, it is ready first (in 1 min; b in 10 min)",
        ),
        ([offer("a", 60), offer("b", 0)], IN_ORDER, "it is the first in the order of the pool"),
    ],
)
def test_the_choice_says_why(offers: list[Offer], policy: str, why: str) -> None:
    choice = choose(offers, policy)
    assert choice.offer.conn_id == "a"
    assert why in choice.why


# -- nowhere


def test_what_no_cluster_can_ever_run_tells_of_each() -> None:
    other = Offer(Member("slurm"), False, "it has no H100")
    with pytest.raises(NoClusterFitsError, match=r"small: it needs 8 GPUs.*\n  slurm: it has no H100\n"):
        choose([SMALL, other])


@pytest.mark.parametrize("offers", [[SILENT], [SMALL, SILENT], [FULL_DISK], [SMALL, FULL_DISK]])
def test_what_passes_can_be_tried_again(offers: list[Offer]) -> None:
    with pytest.raises(GpuClusterConnectionError) as raised:
        choose(offers)
    for one in offers:
        assert f"{one.conn_id}: {one.why_not}" in str(raised.value)


@pytest.mark.parametrize("policy", [SOONEST, CHEAPEST, IN_ORDER, lambda offers: offers[0]])
def test_no_policy_takes_one_that_does_not_fit(policy: Any) -> None:
    with pytest.raises(NoClusterFitsError):
        choose([SMALL], policy)


# -- a function


def last(offers: Sequence[Offer]) -> Offer:
    return offers[-1]


def last_id(offers: Sequence[Offer]) -> str:
    return offers[-1].conn_id


class Last:
    def __call__(self, offers: Sequence[Offer]) -> str:
        return offers[-1].conn_id


@pytest.mark.parametrize("policy", [last, last_id, Last(), functools.partial(last), lambda offers: offers[-1]])
def test_a_function_gets_what_fits_and_returns_one_of_it(policy: Any) -> None:
    choice = choose([SILENT, offer("a"), offer("b"), SMALL], policy)
    assert choice.offer.conn_id == "b"
    assert "the policy " in choice.why


def fails(offers: Sequence[Offer]) -> Offer:
    raise KeyError("no such price")


def returns_nothing(offers: Sequence[Offer]) -> None: ...


def returns_a_stranger(offers: Sequence[Offer]) -> str:
    return "gpu99"


def returns_one_that_does_not_fit(offers: Sequence[Offer]) -> Offer:
    return SMALL


def returns_a_list(offers: Sequence[Offer]) -> Any:
    return list(offers)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (fails, r"test_choice\.fails has failed: KeyError: 'no such price'"),
        (returns_nothing, r"test_choice\.returns_nothing has returned None; .*: a, b"),
        (returns_a_stranger, r"returned 'gpu99'; .*: a, b"),
        (returns_one_that_does_not_fit, "returned 'small'"),
        (returns_a_list, r"returned \["),
        (functools.partial(fails), r"test_choice\.fails has failed"),
    ],
)
def test_a_function_that_fails_is_named(policy: Any, said: str) -> None:
    with pytest.raises(InvalidJobError, match=said):
        choose([offer("a"), offer("b"), SMALL], policy)


def test_a_function_may_skip_the_task() -> None:
    def too_expensive(offers: Sequence[Offer]) -> Offer:
        raise AirflowSkipException("too expensive today")

    with pytest.raises(AirflowSkipException):
        choose([offer("a")], too_expensive)


def test_another_word_is_told_with_those_that_are_valid() -> None:
    with pytest.raises(InvalidJobError, match="'fastest'; valid are 'soonest', 'cheapest', 'in_order', or a function"):
        choose([offer("a")], "fastest")
