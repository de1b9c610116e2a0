"""The log of a job: windows of it, a search through it, and a copy of it."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from airflow_provider_gpu_cluster.gpu_run.protocol import logs
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.api.access import may_read_log
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, job_of
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.log_download import LogDownload
from airflow_provider_gpu_cluster.plugins.shown import shown, shown_lines

# How long a search goes on before it says what it has found so far, in seconds.
SEARCH_S = 1.5
MOST_PLACE = 1 << 62

router = APIRouter(tags=["Log"])

Stream = Annotated[
    Literal["output", "errors", "environment"],
    Query(
        description="`output` is what the job prints to stdout and stderr, `errors` what it prints to stderr, and "
        "`environment` why its Python environment could not be built"
    ),
]
Attempt = Annotated[
    int | None,
    Query(
        ge=1,
        description="what this attempt has printed; by default the newest log, to which attempts that follow each "
        "other by themselves add what they print",
    ),
]


class LogState(BaseModel):
    """The log of a job. All places are in bytes of it."""

    log: int = Field(description="number of the attempt with which the log begins; another try begins another log")
    size: int
    start: int = Field(description="where the part begins that was asked for")
    stop: int = Field(description="where that part ends, for now")
    grows: bool = Field(description="whether more may be added to it")
    file: str = Field(description="changes when there is another file in its place")
    problem: str = Field(description="why it cannot be read; empty if it can, or if there is none yet")


class LogLines(LogState):
    """A window of a log: whole lines, or a piece of one that is longer."""

    offset: int = Field(description="where the window begins")
    end: int = Field(description="where it ends")
    lines: list[str] = Field(description="without secrets; what is no UTF-8 is written like `\\x80`")
    bytes: list[int] = Field(description="how many bytes each line has in the log, with its end")
    whole_start: bool = Field(description="whether the first line begins with the window")
    whole_end: bool = Field(description="whether the last line ends with it")
    at_end: bool = Field(description="whether there is nothing behind it that can be shown now")


class FoundLine(BaseModel):
    """A line that was found."""

    line: int = Field(description="where it begins")
    offset: int = Field(description="where its first match begins")
    text: str = Field(description="the match, and a little around it")


class FoundLines(LogState):
    """What a search has found."""

    hits: list[FoundLine] = Field(description="in the order of the search, each line once")
    next: int | None = Field(description="the `place` to go on from; null when all was searched")


def _request(handle: JobHandle, attempt: int | None, stream: str, **more: object) -> dict[str, object]:
    return {"job_id": handle.job_id, "attempt": attempt, "stream": stream, **more}


@router.get(f"{JOB_PATH}/log", dependencies=[may_read_log])
async def log(
    address: Address,
    attempt: Attempt = None,
    stream: Stream = "output",
    place: Annotated[
        int | None,
        Query(ge=0, le=MOST_PLACE, description="in bytes; by default the end, or the start if `way` is `after`"),
    ] = None,
    way: Annotated[
        Literal["after", "before", "around"], Query(description="where the window is, seen from `place`")
    ] = "before",
    most_bytes: Annotated[int, Query(ge=1, le=logs.MOST_BYTES)] = logs.MOST_BYTES,
    most_lines: Annotated[int, Query(ge=1, le=logs.MOST_LINES)] = logs.MOST_LINES,
) -> LogLines:
    """Return a window of a job's log; by default its end."""
    handle = await run_in_threadpool(job_of, address)
    window = {"place": place, "way": way, "most_bytes": most_bytes, "most_lines": most_lines}
    answer = await ask(handle.gpu_cluster_conn_id, "read-log", _request(handle, attempt, stream, **window))
    lines = await run_in_threadpool(shown_lines, answer["lines"])
    return LogLines(**{**answer, "lines": lines, "problem": shown(answer["problem"])})


@router.get(f"{JOB_PATH}/log/search", dependencies=[may_read_log])
async def search(
    address: Address,
    q: Annotated[str, Query(min_length=1, max_length=1000, description="the text")],
    attempt: Attempt = None,
    stream: Stream = "output",
    is_regex: Annotated[bool, Query(description="whether the text is a regular expression of Python")] = False,
    ignore_case: bool = False,
    place: Annotated[
        int | None,
        Query(
            ge=0, le=MOST_PLACE, description="where to begin, in bytes; by default the start, or the end if backwards"
        ),
    ] = None,
    way: Annotated[Literal["after", "before"], Query(description="`before` searches backwards")] = "after",
    limit: Annotated[int, Query(ge=1, le=1000, description="how many lines to find")] = 100,
) -> FoundLines:
    """
    Search a job's log line by line.

    It goes on for a moment, or until so many lines are found. ``next`` says where to go on. Secrets cannot be found.
    """
    handle = await run_in_threadpool(job_of, address)
    until = time.monotonic() + SEARCH_S
    hits: list[logs.LogHit] = []
    asked = _request(handle, attempt, stream, text=q, is_regex=is_regex, ignore_case=ignore_case, way=way, place=place)
    while True:
        answer = await ask(handle.gpu_cluster_conn_id, "search-log", {**asked, "most": limit - len(hits)})
        hits += answer["hits"]
        if answer["next"] is None or len(hits) >= limit or time.monotonic() >= until:
            break
        asked["place"] = answer["next"]
    return FoundLines(**shown({**answer, "hits": hits}))


@router.get(
    f"{JOB_PATH}/log/download",
    dependencies=[may_read_log],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "the log as it is, but without secrets"}},
)
async def download(address: Address, attempt: Attempt = None, stream: Stream = "output") -> StreamingResponse:
    """Return a whole log, or what an attempt has printed, as a file. It ends where the log ends at this moment."""
    handle = await run_in_threadpool(job_of, address)
    copy = LogDownload(handle.gpu_cluster_conn_id, _request(handle, attempt, stream))
    await copy.begin()
    if copy.problem:
        raise HTTPException(409, copy.problem)
    part = "".join([f".attempt-{attempt}" if attempt else "", "" if stream == "output" else f".{stream}"])
    return StreamingResponse(
        copy.pieces(),
        media_type="text/plain; charset=utf-8",
        headers={
            # A job id is a safe name for a file.
            "Content-Disposition": f'attachment; filename="{handle.job_id}{part}.log"',
            # What a job has printed must not act in Airflow's name, whatever a browser takes it for.
            "Content-Security-Policy": "default-src 'none'; sandbox",
            # Airflow would compress it, and answer nobody else meanwhile.
            "Content-Encoding": "identity",
        },
    )
