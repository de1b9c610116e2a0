"""Asks a cluster something for a page, over the connection that all viewers share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from airflow_provider_gpu_cluster.plugins.cluster_access import cluster_of

ANSWER_S = 10.0


async def ask(conn_id: str, verb: str, request: Mapping[str, Any], *, wait_s: float = ANSWER_S) -> Any:
    """
    Return the cluster's answer to a verb that changes nothing.

    :param wait_s: how long to wait for it, in seconds.
    :raises GpuClusterError: the cluster cannot be asked now (:class:`GpuClusterConnectionError`), or refuses.
    """

    def call() -> Any:
        with cluster_of(conn_id) as cluster:
            return cluster.session.retrying_for(0).call(verb, dict(request))

    return await asyncio.wait_for(asyncio.to_thread(call), wait_s)
