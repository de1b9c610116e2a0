"""The elements of an array: how each stands, what it was given, and what has come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from airflow_provider_gpu_cluster.plugins.api.access import may_read_log
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, job_of
from airflow_provider_gpu_cluster.plugins.element_parameters import parameters_of
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.shown import shown

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.looks import ElementLook, ListElementsReply

MOST = 250

router = APIRouter(tags=["Elements"])


class ElementRow(BaseModel):
    """
    An element of an array, as its records on the cluster tell it.

    ``parameters`` are its arguments by their names; the values of environment variables, ``env_names``, are hidden.
    ``metrics`` are its final ones, see the route ``metrics``.
    """

    index: int
    job_id: str
    state: str
    reason: str | None = None
    kind: str | None = None
    message: str | None = None
    attempt: int | None = None
    exit_code: int | None = None
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    gpus: list[int] | None = None
    host: str | None = None
    progress: dict[str, Any] | None = None
    parameters: dict[str, Any] = {}
    env_names: list[str] = []
    metrics: dict[str, Any] | None = None
    metric_count: int | None = None
    metrics_problem: str | None = None


class ElementsPage(BaseModel):
    """Some elements of an array of ``size``; ``next`` is the ``offset`` of those that follow."""

    elements: list[ElementRow]
    size: int
    next: int | None
    counts: dict[str, int] | None = None


@router.get(f"{JOB_PATH}/elements", dependencies=[may_read_log])
async def elements(
    address: Address,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
    failed_first: Annotated[bool, Query(description="else in the order of the array")] = True,
    index: Annotated[list[int] | None, Query(max_length=MOST, description="only these")] = None,
) -> ElementsPage:
    """Return elements of an array with their parameters and metrics, those that have ended badly first."""
    handle = await run_in_threadpool(job_of, address)
    if handle.array_size is None:
        raise HTTPException(404, "The job of this task is no array.")
    request: dict[str, Any] = {"job_id": handle.job_id, "offset": offset, "limit": limit, "failed_first": failed_first}
    if index is not None:
        request["indexes"] = index
    reply: ListElementsReply = await ask(handle.gpu_cluster_conn_id, "list-elements", request)
    found = {**reply, "elements": [_element(element) for element in reply["elements"]]}
    return ElementsPage.model_validate(shown(found))


def _element(element: ElementLook) -> dict[str, Any]:
    arguments = [argument for argument in element.get("arguments", []) if isinstance(argument, str)]
    return {**element, "parameters": parameters_of(arguments)}
