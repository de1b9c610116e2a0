"""
The metrics of all clusters, in the text format of Prometheus: ``/gpu-cluster/metrics``.

They name DAGs and users of all teams. So they are for who has the token in ``[gpu_cluster] metrics_token``, and for
those who may read all of Airflow's connections.
"""

from __future__ import annotations

import functools
import hmac
import logging
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.core_api.security import resolve_user_from_token
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from airflow_provider_gpu_cluster import options
from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLooks
from airflow_provider_gpu_cluster.plugins.listed_connections import connection_ids
from airflow_provider_gpu_cluster.plugins.metric_families import ClusterCollector

log = logging.getLogger(__name__)

looks = ClusterLooks()
router = APIRouter()
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


@functools.cache
def metrics_token() -> str | None:
    """Return the token, which is read once, as it may come from a command."""
    return options.metrics_token()


def _token_or_refusal() -> str | None:
    try:
        return metrics_token()
    except Exception as error:
        # A command or a secrets backend has failed.
        log.exception("cannot read [gpu_cluster] metrics_token")
        raise HTTPException(503, "The token cannot be read; the API server's log says why.") from error


async def may_scrape(request: Request, bearer: _Bearer) -> None:
    """
    Let in who has the token, or a login that may read all connections.

    :raises HTTPException: 401: neither is given; 403: the login may not.
    """
    given = bearer.credentials if bearer else None
    token = await run_in_threadpool(_token_or_refusal)
    if given and token and hmac.compare_digest(given.encode(), token.encode()):
        return
    try:
        user = await resolve_user_from_token(given or request.cookies.get(COOKIE_NAME_JWT_TOKEN))
    except HTTPException as error:
        raise HTTPException(
            401,
            "Give the token of [gpu_cluster] metrics_token as 'Authorization: Bearer TOKEN', or log in to Airflow.",
            headers={"WWW-Authenticate": "Bearer"},
        ) from error
    is_allowed = await run_in_threadpool(
        get_auth_manager().is_authorized_connection, method="GET", details=ConnectionDetails(), user=user
    )
    if not is_allowed:
        raise HTTPException(403, "The metrics name DAGs and users, so they are for those who may read connections.")


@router.get("/metrics", dependencies=[Depends(may_scrape)])
async def metrics(request: Request) -> Response:
    """Return the metrics of all clusters, as of now or of a moment ago."""
    conn_ids = await run_in_threadpool(connection_ids)
    known = await looks.looks(conn_ids)
    registry = CollectorRegistry()
    registry.register(ClusterCollector(known))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(await run_in_threadpool(encode, registry), media_type=content_type)
