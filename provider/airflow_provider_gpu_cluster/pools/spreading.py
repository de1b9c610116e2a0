"""How the elements of an array are shared among the clusters of a pool."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import part_id
from airflow_provider_gpu_cluster.pools.choice import BUILD_S, TYPICAL_RUN_S, choose, sending_s, start_s
from airflow_provider_gpu_cluster.pools.offer import Offer
from airflow_provider_gpu_cluster.pools.pool import CHEAPEST, SOONEST, Policy

# More places at once than an array has elements make no difference.
_MOST_PLACES = 1000


@dataclass(frozen=True)
class PlannedPart:
    """
    Elements of an array that are to go to one cluster.

    :param conn_id: its connection.
    :param first: index of the first of them.
    :param count: how many.
    """

    conn_id: str
    first: int
    count: int


@dataclass(frozen=True)
class SpreadPlan:
    """
    How an array was shared out. It is kept before anything is launched, so that every try launches the same parts.

    :param job_id: the array.
    :param parts: in the order of the elements, all of them.
    """

    job_id: str
    parts: tuple[PlannedPart, ...]

    @property
    def count(self) -> int:
        """How many elements the array has."""
        return sum(part.count for part in self.parts)

    def part_ids(self) -> list[str]:
        """Return the job id of each part."""
        return [part_id(self.job_id, number) for number in range(len(self.parts))]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"job_id": self.job_id, "parts": [asdict(part) for part in self.parts]}

    @classmethod
    def from_json(cls, value: Any) -> SpreadPlan | None:
        """Read it back; None if it is something else."""
        try:
            return cls(value["job_id"], tuple(PlannedPart(**part) for part in value["parts"]))
        except (TypeError, KeyError):
            return None


def plan_of(job_id: str, count: int, offers: Sequence[Offer], policy: Policy, *, run_s: float | None) -> SpreadPlan:
    """
    Share out an array.

    :param count: number of its elements.
    :param offers: for one element, of each member of the pool, in its order.
    :param run_s: for how long an element is expected to run; None if nobody knows.
    :raises NoClusterFitsError: no cluster can ever run an element.
    :raises GpuClusterConnectionError: none can now.
    :raises InvalidJobError: the policy chooses one cluster and cannot share.
    """
    if not isinstance(policy, str):
        raise InvalidJobError(
            "spread=True shares the elements of an array among clusters, and a policy that is a function chooses one; "
            f"use policy={SOONEST!r}, {CHEAPEST!r} or 'in_order', or leave spread out"
        )
    choose(offers, policy)  # raises if there is none
    fitting = [offer for offer in offers if offer.answered and offer.fits]
    counts = shares(fitting, count, run_s=run_s) if policy == SOONEST else _in_turn(_in_order(fitting, policy), count)
    parts, first = [], 0
    for offer in fitting:
        if counts.get(offer.conn_id):
            parts.append(PlannedPart(offer.conn_id, first, counts[offer.conn_id]))
            first += counts[offer.conn_id]
    return SpreadPlan(job_id, tuple(parts))


def shares(offers: Sequence[Offer], count: int, *, run_s: float | None) -> Mapping[str, int]:
    """
    Return how many elements each cluster gets, so that all have ended as soon as possible.

    One after the other goes where it would end first: a cluster has as many places as elements fit onto its GPUs; one
    place is there for each that is free now, once the inputs are there, and the others when the cluster expects to
    start one more. What is expected there counts divided by the weight of the cluster.

    :param offers: of the clusters that fit.
    :param run_s: for how long an element is expected to run; None if nobody knows.
    """
    run_s = run_s or TYPICAL_RUN_S
    # When the next element would end, at each place of each cluster.
    ends = {offer.conn_id: _first_ends(offer, run_s) for offer in offers}
    counts: Counter[str] = Counter()

    def key(offer: Offer) -> tuple[float, float]:
        places = ends[offer.conn_id]
        # Few elements stay together. When some have to wait, equals get the same in proportion to their places.
        return places[0], max(1.0, counts[offer.conn_id] / len(places))

    for _ in range(count):
        best = min(offers, key=key)
        counts[best.conn_id] += 1
        places = ends[best.conn_id]
        heapq.heapreplace(places, places[0] + run_s / best.member.weight)
    return counts


def _first_ends(offer: Offer, run_s: float) -> list[float]:
    ready_s = sending_s(offer) + (BUILD_S if offer.is_environment_built is False else 0.0)
    free, all_of_them = _places(offer)
    later_s = max(ready_s, _next_start_s(offer, run_s))
    return [((ready_s if place < free else later_s) + run_s) / offer.member.weight for place in range(all_of_them)]


def _places(offer: Offer) -> tuple[int, int]:
    """Return how many elements a cluster can run at once: now, and when all of its GPUs are free."""
    needs = max(1, offer.needs_gpus)
    free = (offer.free_gpus or 0) // needs
    if offer.starts_in_s == 0:
        free = max(1, free)
    return free, min(_MOST_PLACES, max(1, free, (offer.gpus or 0) // needs))


def _next_start_s(offer: Offer, run_s: float) -> float:
    """Return when a place is free that is taken now."""
    start = start_s(offer)
    # Where one element starts at once, nobody has told when the next one does: others like it run there.
    return start if start > 0 else run_s


def _in_order(offers: Sequence[Offer], policy: str) -> list[Offer]:
    if policy != CHEAPEST:
        return list(offers)
    left, ranked = list(offers), []
    while left:
        ranked.append(choose(left, policy).offer)
        left.remove(ranked[-1])
    return ranked


def _in_turn(offers: Sequence[Offer], count: int) -> Mapping[str, int]:
    """Let each cluster take what it can start now; what is left waits at the first one."""
    counts: Counter[str] = Counter()
    left = count
    for offer in offers:
        taken = min(left, _places(offer)[0])
        counts[offer.conn_id] += taken
        left -= taken
    counts[offers[0].conn_id] += left
    return counts
