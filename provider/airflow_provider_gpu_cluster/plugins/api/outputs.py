"""What a job has written into its outputs: a list, previews, single files, and its final metrics."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol.looks import PAGE_ENTRIES
from airflow_provider_gpu_cluster.plugins import output_download
from airflow_provider_gpu_cluster.plugins.api.access import may_read_log
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, JobAddress, job_of
from airflow_provider_gpu_cluster.plugins.collected import Collection, collections_of
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.output_download import SMALL_BYTES, LargeFile, TooManyDownloads
from airflow_provider_gpu_cluster.plugins.output_names import attachment, path_of, shown_path
from airflow_provider_gpu_cluster.plugins.raster_image import MOST_PIXELS, raster_type, size_of
from airflow_provider_gpu_cluster.plugins.shown import shown

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.looks import (
        ListOutputsReply,
        ReadMetricsReply,
        ReadOutputReply,
        ShownOutput,
    )
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle

PREVIEW_BYTES = 256 << 10
IMAGE_BYTES = 8 << 20
# What a job has made must not act in Airflow's name, whatever a browser takes it for.
_SANDBOX = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Airflow would compress it, which costs much for what is often random, and leaves out how long it is.
    "Content-Encoding": "identity",
}
_TABLES = (".csv", ".tsv")
_JSONS = (".json", ".jsonl", ".ndjson", ".ipynb")

router = APIRouter(tags=["Outputs"])


class OutputRow(BaseModel):
    """
    An output of a job.

    ``path`` is what the other routes take, unless there is ``path_base64``: then the name is not UTF-8. ``kind`` is
    ``file``, or says why it cannot be read: ``outside`` (a link out of the outputs), ``broken``, ``special``,
    ``unreadable``, ``secret`` (its name holds a secret), ``cut`` (a folder with too many names) or ``unknown``. It is
    ``collected`` if the cluster cannot tell of it now, and this is what a task that has collected it knows.
    """

    path: str
    path_base64: str | None = None
    kind: str
    size: int
    modified_at: str | None = None
    target: str | None = None
    sha256: str | None = None


class OutputsSum(BaseModel):
    """How much there is; more than that if it is not ``is_whole``."""

    files: int
    bytes: int
    is_whole: bool


class CollectedTo(BaseModel):
    """Where a task of the same DAG run has brought outputs to."""

    task_id: str
    map_index: int
    destination: str
    at: datetime
    files: int


class OutputsPage(BaseModel):
    """
    A page of outputs; ``next`` is the ``after`` of the next page, and ``totals`` are of the first page only.

    ``problem`` says why the cluster cannot tell, when outputs are known only from their collection.
    """

    outputs: list[OutputRow]
    next: str | None
    is_array: bool
    totals: OutputsSum | None = None
    collected: list[CollectedTo] | None = None
    problem: str | None = None


class OutputPreview(BaseModel):
    """
    The beginning of an output.

    ``kind`` is ``text``, ``json``, ``table``, ``image`` (see the route ``outputs/image``) or ``binary``. ``end`` is
    where the text ends in the file; if that is before its end, the text is cut.
    """

    kind: Literal["text", "json", "table", "image", "binary"]
    size: int
    modified_at: str
    media_type: str | None = None
    text: str | None = None
    end: int | None = None
    why_not: str | None = None


class OutputChecksum(BaseModel):
    """The SHA-256 of an output, in hex."""

    sha256: str
    size: int
    modified_at: str


class FinalMetrics(BaseModel):
    """What a job has left in ``metrics.json``: values by name, names in objects with dots; ``count`` is of all."""

    metrics: dict[str, Any]
    count: int
    problem: str | None = None


def _path(
    path: Annotated[str | None, Query(description="of the output, as the list has it")] = None,
    path_base64: Annotated[str | None, Query(description="the same, for a name that is not UTF-8")] = None,
) -> str:
    try:
        return path_of(path, path_base64)
    except ValueError as error:
        raise HTTPException(422, f"This is no path of an output: {error}.") from error


OutputPath = Annotated[str, Depends(_path)]


@contextmanager
def _explained() -> Iterator[None]:
    """Say what keeps an output from being read."""
    try:
        yield
    except TooManyDownloads as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "60"}) from error
    except CollectError as error:
        raise HTTPException(409 if "changed" in str(error) else 404, str(error)) from error


@router.get(f"{JOB_PATH}/outputs", dependencies=[may_read_log])
async def outputs(
    address: Address,
    after: Annotated[str | None, Query(description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ENTRIES)] = 200,
    contains: Annotated[str | None, Query(max_length=500, description="only paths with this text")] = None,
) -> OutputsPage:
    """Return what a job has written into its outputs, or the elements of an array have, in the order of the paths."""
    handle = await run_in_threadpool(job_of, address)
    request: dict[str, Any] = {"job_id": handle.job_id, "limit": limit}
    if after:
        request["after"] = _path(path_base64=after)
    if contains:
        request["contains"] = contains
    collections = await run_in_threadpool(_collections, address, handle)
    page: dict[str, Any]
    try:
        reply: ListOutputsReply = await ask(handle.gpu_cluster_conn_id, "list-outputs", request)
    except (GpuClusterError, TimeoutError) as error:
        known = [] if after else _known(collections, contains or "", limit)
        if not known:
            raise
        page = {"outputs": known, "next": None, "is_array": handle.array_size is not None}
        page["problem"] = shown(words_of(error))
    else:
        page = {
            "outputs": [_output(output, collections) for output in reply["outputs"]],
            "next": None if reply["next"] is None else _place(reply["next"]),
            "is_array": reply["is_array"],
            "totals": reply.get("totals"),
        }
    if not after:
        page["collected"] = [
            {
                "task_id": one.task_id,
                "map_index": one.map_index,
                "destination": one.destination,
                "at": one.at,
                "files": len(one.checksums),
            }
            for one in collections
        ]
    return OutputsPage.model_validate(page)


@router.get(f"{JOB_PATH}/outputs/preview", dependencies=[may_read_log])
async def preview(
    address: Address, path: OutputPath, offset: Annotated[int, Query(ge=0, description="where to begin")] = 0
) -> OutputPreview:
    """Return the beginning of an output as text without the job's secrets, or say what else it is."""
    handle = await run_in_threadpool(job_of, address)
    request = {"job_id": handle.job_id, "path": path, "as_text": True, "offset": offset, "size": PREVIEW_BYTES}
    with _explained():
        reply: ReadOutputReply = await ask(handle.gpu_cluster_conn_id, "read-output", request)
    found: dict[str, Any] = {name: reply.get(name) for name in ("size", "modified_at", "text", "end")}
    media_type = raster_type(_head(reply))
    if media_type is not None:
        found |= {"kind": "image", "media_type": media_type, "text": None}
        if reply["size"] > IMAGE_BYTES:
            found["why_not"] = f"It has {reply['size']:,} bytes; images up to {IMAGE_BYTES:,} are shown."
    elif found["text"] is None:
        found["kind"] = "binary"
    else:
        name = path.lower()
        found["kind"] = "json" if name.endswith(_JSONS) else "table" if name.endswith(_TABLES) else "text"
    return OutputPreview.model_validate(shown(found))


@router.get(
    f"{JOB_PATH}/outputs/image",
    dependencies=[may_read_log],
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}},
)
async def image(address: Address, path: OutputPath) -> Response:
    """Return an image of pixels; nothing that can hold a script is one."""
    handle = await run_in_threadpool(job_of, address)
    with _explained():
        facts = await output_download.facts_of(handle, path)
        if facts["size"] > IMAGE_BYTES:
            raise HTTPException(413, f"The image has {facts['size']:,} bytes; up to {IMAGE_BYTES:,} are shown.")
        content, _ = await output_download.whole(handle, path, facts)
    media_type, pixels = raster_type(content), size_of(content)
    if media_type is None or pixels is None:
        raise HTTPException(415, "This output is no PNG, JPEG, GIF or WebP image.")
    if pixels[0] * pixels[1] > MOST_PIXELS:
        raise HTTPException(413, f"The image has {pixels[0]:,} by {pixels[1]:,} pixels, which is too much to show.")
    return Response(content, media_type=media_type, headers={**_SANDBOX, "Content-Disposition": "inline"})


@router.get(
    f"{JOB_PATH}/outputs/file",
    dependencies=[may_read_log],
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def file(address: Address, path: OutputPath) -> Response:
    """
    Send a whole output, byte by byte as the job has written it.

    ``Repr-Digest`` has its SHA-256, if the file is small. The bytes of a large file are compared with the checksum that
    the cluster computes; if they differ, or the file changes meanwhile, the response ends before its announced length.
    """
    handle = await run_in_threadpool(job_of, address)
    headers = {**_SANDBOX, "Content-Disposition": attachment(path)}
    with _explained():
        facts = await output_download.facts_of(handle, path, checksum=False)
        if facts["size"] <= SMALL_BYTES:
            content, sha256 = await output_download.whole(handle, path, facts)
            headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
            return Response(content, media_type="application/octet-stream", headers=headers)
        response = LargeFile(handle, path, facts, headers)
        await response.begin()
    return response


@router.get(f"{JOB_PATH}/outputs/checksum", dependencies=[may_read_log])
async def checksum(address: Address, path: OutputPath) -> OutputChecksum:
    """Compute the SHA-256 of an output on the cluster. Of a large file this takes a second for each gigabyte or two."""
    handle = await run_in_threadpool(job_of, address)
    with _explained():
        facts, sha256 = await output_download.checksum(handle, path)
    return OutputChecksum(sha256=sha256, size=facts["size"], modified_at=facts["modified_at"])


@router.get(f"{JOB_PATH}/metrics", dependencies=[may_read_log])
async def metrics(address: Address) -> FinalMetrics:
    """Return the final metrics of a job."""
    handle = await run_in_threadpool(job_of, address)
    with _explained():
        reply: ReadMetricsReply = await ask(handle.gpu_cluster_conn_id, "read-metrics", {"job_id": handle.job_id})
    found = {"metrics": reply.get("metrics", {}), "count": reply.get("count", 0), "problem": reply.get("problem")}
    return FinalMetrics.model_validate(shown(found))


def _head(reply: ReadOutputReply) -> bytes:
    try:
        return base64.b64decode(reply.get("head", ""))
    except ValueError:
        return b""


def _place(path: str) -> str:
    return base64.urlsafe_b64encode(os.fsencode(path)).decode()


def _collections(address: JobAddress, handle: JobHandle) -> list[Collection]:
    """Return the collections of a job, or what concerns one element in those of its array."""
    if address.element is None:
        return collections_of(address, handle.job_id)
    found = collections_of(address, job_of(replace(address, element=None)).job_id)
    return [one.of_element(address.element) for one in found]


def _known(collections: list[Collection], contains: str, limit: int) -> list[dict[str, Any]]:
    """Return what is known of outputs that were collected."""
    found = {path: known for one in reversed(collections) for path, known in one.checksums.items()}
    return [
        {"path": shown_path(path)[0], "kind": "collected", "size": size, "sha256": sha256}
        for path, (size, sha256) in sorted(found.items())
        if contains.casefold() in path.casefold() and shown(path) == path
    ][:limit]


def _output(output: ShownOutput, collections: list[Collection]) -> dict[str, Any]:
    path, path_base64 = shown_path(output["path"])
    seen = {**output, "path": path, "path_base64": path_base64}
    if shown(path) != path:
        return {"path": shown(path), "kind": "secret", "size": 0}
    if "sha256" not in output:
        for one in collections:
            size, sha256 = one.checksums.get(output["path"], (-1, ""))
            if size == output["size"] and _is_before(output.get("modified_at"), one.at):
                seen["sha256"] = sha256
                break
    return shown(seen)


def _is_before(modified_at: str | None, at: datetime) -> bool:
    try:
        return modified_at is not None and datetime.fromisoformat(modified_at) < at
    except (ValueError, TypeError):
        return False
