"""The choice of one cluster among those that offer to run a job."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    InvalidJobError,
    NoClusterFitsError,
)
from airflow_provider_gpu_cluster.jobs.progress import duration_text
from airflow_provider_gpu_cluster.pools.offer import Offer
from airflow_provider_gpu_cluster.pools.policy_function import name_of
from airflow_provider_gpu_cluster.pools.pool import CHEAPEST, IN_ORDER, POLICIES, SOONEST, Policy

# What is taken for what nobody knows. How long a job runs, in seconds:
TYPICAL_RUN_S = 3600.0
# how long a cluster that does not say when a job starts takes at least, in seconds,
UNTOLD_START_S = 60.0
# how fast inputs are sent to a cluster that has got none yet, in bytes per second,
TYPICAL_BYTES_PER_S = 20e6
# and how long a Python environment takes to build, in seconds.
BUILD_S = 120.0

_DAY_S = 86400.0


@dataclass(frozen=True)
class Choice:
    """
    What was chosen for one job.

    :param why: a sentence for people.
    :param offers: all that there were.
    """

    offer: Offer
    why: str
    offers: tuple[Offer, ...]


def choose(offers: Sequence[Offer], policy: Policy = SOONEST) -> Choice:
    """
    Choose a cluster for a job.

    :param offers: one of each member of the pool, in its order.
    :param policy: ``soonest``: where the job runs first, see :func:`whole_wait_s`, divided by the weight of the member;
        among equals the cheapest, then the one with the highest weight, then the first. ``cheapest``: the lowest price
        per GPU-hour, one that is not known last; among equals the soonest. ``in_order``: the first that answers and
        fits, even if the job has to wait there. Or a function, see :data:`.Policy`.
    :raises NoClusterFitsError: no cluster can ever run the job.
    :raises GpuClusterConnectionError: none can now, but one that has not answered, or that is kept by something that
        passes, may be able to later.
    :raises InvalidJobError: the function fails, or returns something else.
    """
    fitting = [offer for offer in offers if offer.answered and offer.fits]
    if not fitting:
        raise _nowhere(offers)
    if not isinstance(policy, str):
        return Choice(_called(policy, fitting), f"the policy {name_of(policy)} has chosen it", tuple(offers))
    if policy not in POLICIES:
        raise InvalidJobError(f"policy is {policy!r}; valid are {', '.join(map(repr, POLICIES))}, or a function")
    ranked = fitting if policy == IN_ORDER else _ranked(fitting, policy)
    return Choice(ranked[0], _why(ranked, policy), tuple(offers))


def whole_wait_s(offer: Offer) -> float:
    """Return how long a job that is launched now waits there until it computes, in seconds, as far as that is known."""
    return start_s(offer) + sending_s(offer) + (BUILD_S if offer.is_environment_built is False else 0.0)


def start_s(offer: Offer) -> float:
    """Return when a job is expected to start there, in seconds from now; an estimate, if the cluster does not say."""
    if offer.starts_in_s is not None:
        return max(0.0, offer.starts_in_s)
    if offer.likely_in_s is not None:
        return max(UNTOLD_START_S, offer.likely_in_s)
    is_room = offer.free_gpus is not None and offer.free_gpus >= offer.needs_gpus
    before = (offer.waiting or 0) + (0 if is_room else 1)
    # So many jobs like this one run there at the same time, and one of them ends in each part of a typical run.
    at_once = max(1, (offer.gpus or 0) // max(1, offer.needs_gpus))
    return max(UNTOLD_START_S, TYPICAL_RUN_S * before / at_once)


def sending_s(offer: Offer) -> float:
    """Return how long its inputs take to get there, in seconds."""
    if offer.send_s is not None:
        return offer.send_s
    return (offer.missing_bytes or 0) / TYPICAL_BYTES_PER_S


def _ranked(fitting: Sequence[Offer], policy: str) -> list[Offer]:
    """Return the offers, the best first."""
    waits = {offer.conn_id: whole_wait_s(offer) / offer.member.weight for offer in fitting}
    # An estimate never beats a cluster that says it can start the job now.
    least = max((waits[offer.conn_id] for offer in fitting if _starts_now(offer)), default=0.0)

    def key(offer: Offer) -> tuple[float, ...]:
        is_told = offer.starts_in_s is not None
        wait = waits[offer.conn_id] if is_told else max(waits[offer.conn_id], least)
        # Of less than a second nothing is known.
        soon = (float(round(wait)) if math.isfinite(wait) else wait, 0.0 if is_told else 1.0)
        price = math.inf if offer.price_per_gpu_hour is None else offer.price_per_gpu_hour
        return (*soon, price, -offer.member.weight) if policy == SOONEST else (price, *soon, -offer.member.weight)

    return sorted(fitting, key=key)


def _starts_now(offer: Offer) -> bool:
    return offer.starts_in_s is not None and offer.starts_in_s <= 0


# -- a user's own policy


def _called(policy: Callable[[Sequence[Offer]], Any], fitting: Sequence[Offer]) -> Offer:
    name = name_of(policy)
    try:
        chosen = policy(tuple(fitting))
    except (AirflowSkipException, AirflowFailException):
        # A way to say that the job is to run nowhere.
        raise
    except Exception as error:
        raise InvalidJobError(f"the policy {name} has failed: {type(error).__name__}: {words_of(error)}") from error
    conn_id = chosen.conn_id if isinstance(chosen, Offer) else chosen
    for offer in fitting:
        if isinstance(conn_id, str) and offer.conn_id == conn_id:
            return offer
    raise InvalidJobError(
        f"the policy {name} has returned {repr(conn_id)[:100]}; it must return one of the offers that it gets, or "
        f"the id of its connection: {', '.join(offer.conn_id for offer in fitting)}"
    )


# -- words


def _nowhere(offers: Sequence[Offer]) -> NoClusterFitsError | GpuClusterConnectionError:
    passing = [offer for offer in offers if not offer.answered or offer.is_passing]
    told = reasons(offers)
    if not passing:
        return NoClusterFitsError(
            f"no cluster of the pool can ever run this job:{told}\nAsk for what one of them has, or add a cluster to it"
        )
    if not any(offer.answered for offer in offers):
        return GpuClusterConnectionError(f"no cluster of the pool has answered:{told}")
    return GpuClusterConnectionError(f"no cluster of the pool can run this job now:{told}")


def reasons(offers: Sequence[Offer]) -> str:
    """Return a line for each cluster that says why the job does not go there."""
    return "".join(f"\n  {offer.conn_id}: {offer.why_not or 'it gives no reason'}" for offer in offers)


def _why(ranked: Sequence[Offer], policy: str) -> str:
    best, *others = ranked
    if not others:
        return "no other cluster of the pool has answered that it can run it"
    if policy == IN_ORDER:
        return "it is the first in the order of the pool that has answered and can run it"
    second = others[0]
    if policy == CHEAPEST and best.price_per_gpu_hour != second.price_per_gpu_hour:
        return "it is the cheapest that can run it"
    cheapest = "of the cheapest, " if policy == CHEAPEST and best.price_per_gpu_hour is not None else ""
    weight, other = best.member.weight, second.member.weight
    if round(whole_wait_s(best) / weight) != round(whole_wait_s(second) / other):
        weighed = "" if weight == other else f"; their weights are {weight:g} and {other:g}"
        return f"{cheapest}it is ready first ({when(best)}; {second.conn_id} {when(second)}{weighed})"
    equals = [
        one for one in others if round(whole_wait_s(one) / one.member.weight) == round(whole_wait_s(best) / weight)
    ]
    several = second.conn_id if len(equals) == 1 else f"{len(equals)} others"
    if best.price_per_gpu_hour != second.price_per_gpu_hour:
        last = "it is the cheapest"
    else:
        last = "it comes first in the pool" if weight == other else f"it has the weight {weight:g}"
    return f"{cheapest}it and {several} are ready first ({when(best)}), and {last}"


def when(offer: Offer) -> str:
    """Return when a job computes on a cluster, in words."""
    wait_s = whole_wait_s(offer)
    if wait_s < 1:
        return "at once"
    return f"in {long_text(wait_s)}" + ("" if offer.starts_in_s is not None else ", by an estimate")


def long_text(seconds: float) -> str:
    """Return a readable duration, which may be of many days."""
    return duration_text(seconds) if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:,.0f} days"
