"""What pages stay connected to: a WebSocket, or server-sent events where a proxy lets no WebSocket through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Query, Request, WebSocket
from fastapi.responses import StreamingResponse

from airflow_provider_gpu_cluster.plugins.api.access import may_read_job
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, JobAddress
from airflow_provider_gpu_cluster.plugins.live.ending import is_ending
from airflow_provider_gpu_cluster.plugins.live.limits import counted
from airflow_provider_gpu_cluster.plugins.live.list_page import ListPage
from airflow_provider_gpu_cluster.plugins.live.page import JobPage
from airflow_provider_gpu_cluster.plugins.live.socket import serve
from airflow_provider_gpu_cluster.plugins.live.visitor import Visitor, visitor_of

router = APIRouter(tags=["live"])

Address = Annotated[JobAddress, Depends()]
Opened = Annotated[Visitor, Depends(visitor_of)]

_HEADERS = {"X-Accel-Buffering": "no"}
_LOOK_AT_END_S = 1.0


@router.websocket(f"{JOB_PATH}/live")
async def job_socket(socket: WebSocket, address: Address) -> None:
    """
    Tell a page about a job: it gets JSON objects with a ``type``.

    ``job`` (the job as ``GET`` of it returns it), ``waiting`` (there is none yet, and why), ``log`` (what the job has
    printed, if the page asks for it with ``{"follow_log": true}``), ``progress`` and ``usage`` (new points),
    ``outage`` and ``back`` (the cluster cannot be asked, and can again), ``alive``, and ``gone`` at the end.
    """
    visitor = await visitor_of(socket)
    rights = await visitor.rights(address.dag_id)
    with counted(visitor.name):
        await socket.accept()
        page = JobPage(address, visitor, rights)

        def asked(message: dict[str, Any]) -> None:
            page.want(log=message.get("follow_log") is True)

        await serve(socket, page.viewer, page.run(), asked)


@router.get(
    f"{JOB_PATH}/events",
    dependencies=[may_read_job],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def job_events(
    request: Request,
    address: Address,
    user: GetUserDep,
    follow_log: Annotated[bool, Query(description="whether to send what the job prints as well")] = False,
) -> StreamingResponse:
    """
    Tell about a job with server-sent events: JSON objects with a ``type``, as the WebSocket beside this sends them.

    ``job`` is the job as ``GET`` of it returns it; ``log``, ``progress`` and ``usage`` are what is new; ``gone`` is the
    end.
    """
    visitor = await visitor_of(request) if _has_token(request) else Visitor(user, None)
    rights = await visitor.rights(address.dag_id)
    slot = contextlib.ExitStack()
    slot.enter_context(counted(visitor.name))
    page = JobPage(address, visitor, rights)
    page.want(log=follow_log)
    return StreamingResponse(_events(page, slot), media_type="text/event-stream", headers=_HEADERS)


def _has_token(request: Request) -> bool:
    return "authorization" in request.headers or "_token" in request.cookies


async def _events(page: JobPage, slot: contextlib.ExitStack) -> AsyncIterator[str]:
    with slot:
        running = asyncio.create_task(page.run())
        ending = asyncio.create_task(_end_with_server(page))
        try:
            # A proxy that keeps answers back until there is more of them keeps this back as well, which tells the page.
            yield ": open\n\n"
            while texts := await page.viewer.next():
                yield "".join(f"data: {text}\n\n" for text in texts)
        finally:
            running.cancel()
            ending.cancel()
            await asyncio.gather(running, ending, return_exceptions=True)


async def _end_with_server(page: JobPage) -> None:
    while not is_ending():
        await asyncio.sleep(_LOOK_AT_END_S)
    page.viewer.end()


@router.websocket("/jobs/live")
async def list_socket(socket: WebSocket) -> None:
    """
    Tell a list of jobs what changes in it.

    The page sends ``{"jobs": [job_id, ...]}``, at most 1,000; it gets ``{"type": "rows", "rows": [...]}`` with rows as
    ``GET /jobs`` has them, and ``alive``.
    """
    visitor = await visitor_of(socket)
    with counted(visitor.name):
        await socket.accept()
        page = ListPage(visitor)
        await serve(socket, page.viewer, page.run(), page.want)
