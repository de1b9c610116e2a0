"""Asks a cluster something for a page, over the connection that all viewers share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.plugins.live.clusters import live_cluster

ANSWER_S = 10.0
# How long a cluster that was out of reach is not asked again, so that no page waits for it, in seconds.
KEEP_OUTAGE_S = 5.0

_outages: dict[str, tuple[GpuClusterConnectionError, float]] = {}


async def ask(conn_id: str, verb: str, request: Mapping[str, Any], *, wait_s: float = ANSWER_S) -> Any:
    """
    Return the cluster's answer to a verb that changes nothing, one of :data:`.protocol.READS`.

    :param wait_s: how long to wait for it, in seconds.
    :raises GpuClusterError: the cluster cannot be asked now (:class:`GpuClusterConnectionError`), or refuses. While
        it is known to be out of reach, that is told at once.
    """
    outage, since = _outages.get(conn_id, (None, 0.0))
    if outage is not None and time.monotonic() < since + KEEP_OUTAGE_S:
        raise _again(outage)
    cluster = live_cluster(conn_id)
    if cluster.is_check_due:
        await asyncio.to_thread(cluster.check)
    call = cluster.watcher.call(verb, dict(request))
    call.add_done_callback(lambda call: _remember(conn_id, call))
    try:
        # It goes on when this one waits no longer: what comes of it says whether the cluster is out of reach.
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(call)), wait_s)
    except GpuClusterConnectionError as error:
        raise _again(error) from None
    except asyncio.TimeoutError:
        name = cluster.watcher.name
        raise GpuClusterConnectionError(f"{name}: it has not answered within {wait_s:g} s") from None


def _remember(conn_id: str, call: Future[Any]) -> None:
    """Remember whether a cluster could be reached."""
    error = call.exception()
    if isinstance(error, GpuClusterConnectionError):
        _outages[conn_id] = error, time.monotonic()
    else:
        _outages.pop(conn_id, None)


def _again(error: GpuClusterConnectionError) -> GpuClusterConnectionError:
    """Return the same error for another who is told: an exception that is raised again and again grows."""
    return type(error)(*error.args)
