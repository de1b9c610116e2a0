"""How a job gets and keeps its place in a pool, as the arguments of an operator say it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.parameter_checks import (
    boolean,
    connection_ids,
    failover_after_s,
    move_gain_s,
    optional,
)
from airflow_provider_gpu_cluster.jobs.rendered import check_defined, is_open, is_unset
from airflow_provider_gpu_cluster.pools.policy_function import PolicyFunction
from airflow_provider_gpu_cluster.pools.pool import POLICIES, Policy

MOVE_GAIN = timedelta(minutes=10)


@dataclass(frozen=True)
class PlacementOptions:
    """
    What a DAG author wants of a pool, checked. With one cluster, none of it matters.

    :param policy: how a cluster is chosen; None for the pool's own.
    :param failover_after_s: after how long without contact the job may be launched on another cluster, in seconds; None
        for never.
    :param move_gain_s: by how much sooner a waiting job must start elsewhere to be moved there, in seconds; None if it
        is never moved.
    :param spread: whether the elements of an array may go to different clusters.
    """

    policy: Policy | None = None
    failover_after_s: float | None = None
    move_gain_s: float | None = MOVE_GAIN.total_seconds()
    spread: bool = False


def placement_options(
    *, policy: Any = None, failover_after: Any = None, move_gain: Any = MOVE_GAIN, spread: Any = False
) -> PlacementOptions:
    """
    Check what a DAG author has written, or what templates have made of it.

    :raises InvalidJobError: a value cannot be used.
    """
    return PlacementOptions(
        policy=checked_policy(policy),
        failover_after_s=_optional_seconds(failover_after_s, "failover_after", failover_after),
        move_gain_s=_optional_seconds(move_gain_s, "move_gain", move_gain),
        spread=boolean("spread", spread),
    )


def check_placement(*, gpu_cluster_conn_id: Any = None, **options: Any) -> None:
    """
    Check what can be checked before templates and outputs of other tasks are known.

    :raises InvalidJobError: values cannot be used; each is told in a line.
    """
    wrong = []
    for name, value in {"gpu_cluster_conn_id": gpu_cluster_conn_id, **options}.items():
        try:
            if is_open(value):
                continue
            if name == "gpu_cluster_conn_id":
                connection_ids(value)
            else:
                placement_options(**{name: value})
        except InvalidJobError as error:
            wrong.append(str(error))
    if wrong:
        raise InvalidJobError("\n".join(wrong))


def check_spread(*, spread: Any, array: Any, is_staged: bool) -> None:
    """
    Check what can be checked before templates are known.

    :raises InvalidJobError: there is nothing to spread, or it was sent to one cluster already.
    """
    if spread is not True:
        return
    if array is None:
        raise InvalidJobError(
            "spread=True shares the elements of an array among clusters, and no array is given; give array=[...], or "
            "leave spread out"
        )
    if is_staged:
        raise InvalidJobError(
            "spread=True sends the inputs to several clusters, and those of job were staged on one; give code, data "
            "and models to this task instead of job"
        )


def checked_policy(value: Any) -> Policy | None:
    """
    Return a policy; None if none is given.

    :raises InvalidJobError: it is neither one of the words nor a function of the offers.
    """
    check_defined("policy", value)
    if is_unset(value):
        return None
    if isinstance(value, PolicyFunction):
        value = value.function
    words = ", ".join(map(repr, POLICIES))
    if isinstance(value, str):
        word = value.strip()
        if word not in POLICIES:
            near = get_close_matches(word.lower().replace("-", "_").replace(" ", "_"), POLICIES, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InvalidJobError(f"policy is {repr(value)[:100]}{hint}; valid are {words}, or a function")
        return word
    if not callable(value):
        raise InvalidJobError(f"policy is a {type(value).__name__}; valid are {words}, or a function")
    if inspect.iscoroutinefunction(value) or not _takes_one_argument(value):
        raise InvalidJobError(
            f"policy is the function {getattr(value, '__name__', value)!s}, which cannot be called with the offers: it "
            "must take one argument, the offers that fit, and return one of them or the id of its connection"
        )
    policy: Policy = value
    return policy


def _takes_one_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(())
    except TypeError:
        return False
    except ValueError:  # one that is written in C and does not say
        return True
    return True


def _optional_seconds(check: Callable[[str, Any], float], parameter: str, value: Any) -> float | None:
    check_defined(parameter, value)
    seconds: float | None = optional(check)(parameter, value)
    return seconds
