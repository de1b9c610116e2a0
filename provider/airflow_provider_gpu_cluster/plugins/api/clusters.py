"""The clusters: where a GPU is free, who has the others, and who waits."""

from __future__ import annotations

import hashlib
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Header, HTTPException, Path, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from airflow_provider_gpu_cluster.plugins.api.access import ReadableDags
from airflow_provider_gpu_cluster.plugins.api.errors import RESPONSES
from airflow_provider_gpu_cluster.plugins.api.same_site import OfThisSite
from airflow_provider_gpu_cluster.plugins.cluster_rights import viewers
from airflow_provider_gpu_cluster.plugins.cluster_view import ClusterDetail, ClusterInBrief, Viewer, brief, cluster_view
from airflow_provider_gpu_cluster.plugins.clusters import Clusters

router = APIRouter(tags=["clusters"], responses={status: RESPONSES[status] for status in (401, 403)})
clusters = Clusters()

_NOT_SEEN = "You may not see this cluster: it takes the right to read its connection, or a DAG that has jobs there."


class ClusterList(BaseModel):
    """The clusters that you may see, with what is known of them already."""

    clusters: list[ClusterInBrief]


async def all_viewers(user: GetUserDep, dags: ReadableDags) -> dict[str, Viewer]:
    """Return what the user may see of each cluster."""
    return await run_in_threadpool(viewers, user, dags)


Viewers = Annotated[dict[str, Viewer], Depends(all_viewers)]


def viewer_of(conn_id: Annotated[str, Path(min_length=1)], seen: Viewers) -> Viewer:
    """
    Return what the user may see of a cluster.

    :raises HTTPException: 403: nothing, or there is no such cluster, which is not told apart.
    """
    viewer = seen.get(conn_id)
    if viewer is None:
        raise HTTPException(403, _NOT_SEEN)
    return viewer


def tester_of(viewer: Annotated[Viewer, Depends(viewer_of)]) -> Viewer:
    """
    Return the same of a user who may have it checked.

    :raises HTTPException: 403: the user may not.
    """
    if not viewer.may_test:
        raise HTTPException(403, "To have this cluster checked takes the right to edit its connection.")
    return viewer


@router.get("/clusters")
async def list_clusters(seen: Viewers) -> ClusterList:
    """List the clusters that you may see. This asks none of them: ask for each by itself to know how it is now."""
    return ClusterList(clusters=[brief(conn_id, clusters.known(conn_id)) for conn_id in seen])


@router.get("/clusters/{conn_id}", response_model=ClusterDetail)
async def cluster(
    conn_id: str,
    viewer: Annotated[Viewer, Depends(viewer_of)],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """
    Return how a cluster is now, or was when it last answered.

    With the ``ETag`` of an earlier answer in ``If-None-Match``, the answer is 304 as long as nothing has changed.
    """
    known = await clusters.look(conn_id)
    return await run_in_threadpool(lambda: _answer(cluster_view(conn_id, known, viewer), if_none_match))


@router.post("/clusters/{conn_id}/check", dependencies=[OfThisSite])
async def check(conn_id: str, viewer: Annotated[Viewer, Depends(tester_of)]) -> ClusterDetail:
    """Check a cluster as "Test connection" does it, and return how it is then."""
    return cluster_view(conn_id, await clusters.check_now(conn_id), viewer)


def _answer(detail: ClusterDetail, if_none_match: str | None) -> Response:
    body = detail.model_dump_json()
    # When a cluster that answers was asked is no change.
    same = detail.model_copy(update={"as_of": None}).model_dump_json() if detail.is_up else body
    tag = f'"{hashlib.sha256(same.encode()).hexdigest()[:24]}"'
    if if_none_match == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, media_type="application/json", headers={"ETag": tag})
