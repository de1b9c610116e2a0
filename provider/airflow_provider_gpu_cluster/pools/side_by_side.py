"""Asks the clusters of a pool something at the same time, and waits for none that is silent."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from airflow.sdk.exceptions import AirflowException

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
)
from airflow_provider_gpu_cluster.pools.members import MemberClient, Members

log = logging.getLogger(__name__)

_Client = TypeVar("_Client", bound=MemberClient)
_Result = TypeVar("_Result")
Outcomes: TypeAlias = "dict[str, _Result | GpuClusterError]"

# How long to wait in all for an answer that is enough, in seconds, if those that came are not.
PATIENCE_S = 30.0
# A cluster that takes so many times as long as another is silent. Where all are slow, this machine is.
_TIMES_AS_LONG = 2.0


def _always(outcomes: Mapping[str, object]) -> bool:
    return True


def side_by_side(
    conn_ids: Sequence[str],
    ask: Callable[[_Client], _Result],
    *,
    members: Members[_Client],
    wait_s: float,
    is_enough: Callable[[Mapping[str, _Result | GpuClusterError]], bool] = _always,
    patience_s: float = PATIENCE_S,
) -> Outcomes[_Result]:
    """
    Ask clusters, each in a thread of its own, and return the answer of each, or the error in its place.

    One that is silent costs at most ``wait_s``, or twice as long as the slowest answer took. Its connection is broken
    off then, and whoever needs it next gets another.

    :param conn_ids: which to ask, each once.
    :param ask: asks one; called in a thread.
    :param wait_s: how long to wait for those that are silent, in seconds.
    :param is_enough: whether one can do with these outcomes alone; if not, the others get up to ``patience_s``.
    """
    came = threading.Condition()
    slowest_s = 0.0
    outcomes: dict[str, _Result | GpuClusterError] = {}
    asked: dict[str, _Client] = {}

    def run(conn_id: str, client: _Client) -> None:
        nonlocal slowest_s
        outcome = _outcome(partial(ask, client))
        if not members.is_kept(conn_id, client):
            client.close()
            return
        with came:
            outcomes[conn_id] = outcome
            if not isinstance(outcome, GpuClusterError):
                slowest_s = time.monotonic() - began
            came.notify()

    began = time.monotonic()
    try:
        for conn_id in conn_ids:
            client = _outcome(partial(members, conn_id))
            if isinstance(client, GpuClusterError):
                outcomes[conn_id] = client
                continue
            asked[conn_id] = client
            # A daemon, as the process need not wait for one that is silent.
            threading.Thread(target=run, args=(conn_id, client), name=f"asks {conn_id}", daemon=True).start()
        with came:
            while len(outcomes) < len(conn_ids):
                enough_s = max(wait_s, _TIMES_AS_LONG * slowest_s)
                until = began + (enough_s if is_enough(outcomes) else max(enough_s, patience_s))
                if (left_s := until - time.monotonic()) <= 0:
                    break
                came.wait(left_s)
            answered = dict(outcomes)
    except BaseException:
        answered = {}
        raise
    finally:
        for conn_id, client in asked.items():
            if conn_id not in answered:
                members.leave(conn_id, client)
    waited_s = time.monotonic() - began
    return {conn_id: answered[conn_id] if conn_id in answered else _silence(waited_s) for conn_id in conn_ids}


def _silence(waited_s: float) -> GpuClusterConnectionError:
    return GpuClusterConnectionError(f"it has not answered within {waited_s:.0f} s")


def _outcome(ask: Callable[[], _Result]) -> _Result | GpuClusterError:
    try:
        return ask()
    except GpuClusterError as error:
        return error
    except AirflowException as error:
        # There is no such connection, for instance.
        return GpuClusterSetupError(words_of(error))
    except Exception as error:
        log.debug("asking a cluster failed", exc_info=True)
        return GpuClusterError(f"asking it failed: {type(error).__name__}: {words_of(error)}")
