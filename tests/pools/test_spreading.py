"""How the elements of an array are shared among clusters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, InvalidJobError, NoClusterFitsError
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.spreading import SpreadPlan, plan_of


def offer(conn_id: str, gpus: int, free: int | None = None, *, weight: float = 1.0, **more: Any) -> Offer:
    free = gpus if free is None else free
    values = {"fits": True, "gpus": gpus, "free_gpus": free, "starts_in_s": 0.0 if free else None, **more}
    return Offer(Member(conn_id, weight), **values)


THREE = [offer("a", 8), offer("b", 4), offer("c", 2)]


@pytest.mark.parametrize(
    ("offers", "count", "expected"),
    [
        pytest.param(THREE, 100, {"a": 57, "b": 29, "c": 14}, id="in proportion to their GPUs"),
        pytest.param(THREE, 3, {"a": 3}, id="few stay together"),
        pytest.param(THREE, 14, {"a": 8, "b": 4, "c": 2}, id="all start at once"),
        pytest.param([offer("a", 8, 1), offer("b", 4)], 5, {"a": 1, "b": 4}, id="what is free now first"),
        pytest.param([offer("a", 8, 0, starts_in_s=60), offer("b", 4)], 12, {"a": 8, "b": 4}, id="soon free"),
        pytest.param([offer("a", 8, 0, starts_in_s=9e4), offer("b", 4)], 12, {"b": 12}, id="free tomorrow"),
        pytest.param([offer("a", 4, weight=3), offer("b", 4)], 16, {"a": 12, "b": 4}, id="weights"),
        pytest.param([offer("a", 4, send_s=7200), offer("b", 4)], 12, {"b": 12}, id="inputs are there"),
        pytest.param([offer("a", 8, needs_gpus=4), offer("b", 4, needs_gpus=4)], 9, {"a": 6, "b": 3}, id="large ones"),
        pytest.param([offer("a", 8, fits=False), offer("b", 4)], 9, {"b": 9}, id="does not fit"),
        pytest.param([offer("a", 8, answered=False), offer("b", 4)], 9, {"b": 9}, id="is silent"),
        pytest.param(
            [Offer(Member("a"), fits=True), Offer(Member("b"), fits=True)], 4, {"a": 2, "b": 2}, id="nothing known"
        ),
    ],
)
def test_shares(offers: list[Offer], count: int, expected: dict[str, int]) -> None:
    plan = plan_of("job", count, offers, "soonest", run_s=600)
    assert {part.conn_id: part.count for part in plan.parts} == expected
    firsts = [part.first for part in plan.parts]
    assert firsts == [sum(part.count for part in plan.parts[:number]) for number in range(len(firsts))]
    assert plan.count == count
    assert SpreadPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("in_order", {"a": 12, "b": 4, "c": 2}), ("cheapest", {"b": 12, "c": 2, "a": 4})],
)
def test_other_policies_fill_what_is_free_in_turn(policy: str, expected: dict[str, int]) -> None:
    offers = [
        offer("a", 8, 4, price_per_gpu_hour=3.0),
        offer("b", 4, price_per_gpu_hour=1.0),
        offer("c", 2, price_per_gpu_hour=2.0),
    ]
    plan = plan_of("job", 18, offers, policy, run_s=None)
    assert {part.conn_id: part.count for part in plan.parts} == expected
    assert [part.conn_id for part in plan.parts] == ["a", "b", "c"]


def test_what_cannot_be_shared() -> None:
    with pytest.raises(InvalidJobError, match="a policy that is a function chooses one"):
        plan_of("job", 2, THREE, lambda offers: offers[0], run_s=None)
    with pytest.raises(NoClusterFitsError):
        plan_of("job", 2, [offer("a", 8, fits=False, why_not="no A100")], "soonest", run_s=None)
    with pytest.raises(GpuClusterConnectionError):
        plan_of("job", 2, [Offer(Member("a"), fits=False, answered=False)], "soonest", run_s=None)
    wrong: Any
    for wrong in (None, [], {"job_id": "x"}, {"job_id": "x", "parts": [{"first": 1}]}):
        assert SpreadPlan.from_json(wrong) is None
