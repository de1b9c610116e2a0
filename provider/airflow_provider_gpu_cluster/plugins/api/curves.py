"""The curves of a job: every number that it has reported, and what it has used, over time."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from airflow_provider_gpu_cluster.gpu_run.protocol.series import MOST_CURVES, PROGRESS, USAGE
from airflow_provider_gpu_cluster.plugins.api.access import may_read_log
from airflow_provider_gpu_cluster.plugins.api.address import JOB_PATH, Address, job_of
from airflow_provider_gpu_cluster.plugins.live.asking import ask
from airflow_provider_gpu_cluster.plugins.shown import shown

router = APIRouter()


class History(str, Enum):
    """Which history: of what the job has reported in PROGRESS_FILE, or of what it has used."""

    progress = PROGRESS
    usage = USAGE


class ReportedNumber(BaseModel):
    """One of the numbers of a history."""

    name: str = Field(description="nested names are joined by /, such as train/loss")
    count: int = Field(description="in how many of the lines that were read it is")
    least: float | None = Field(description="the lowest finite value")
    most: float | None = Field(description="the highest finite value")
    last: float | str | None = Field(description="the last value; NaN and infinities as words")
    is_rising: bool = Field(description="whether it never falls within an attempt, so that it can be x")


class PlottedCurve(BaseModel):
    """The points of one number, in the order in which they were written; of each stretch the extremes are kept."""

    name: str
    at: list[int] = Field(description="places of the points, by which those of several slices are put together")
    x: list[float | None] = Field(description="values of x; empty for what is drawn over time alone")
    y: list[float | None] = Field(description="values; null for NaN and infinities")
    t: list[float | None] = Field(description="when they were written, in seconds since the epoch; null if unknown")


class AttemptPart(BaseModel):
    """The part of a history that is of one attempt."""

    attempt: int
    at: int | None = Field(description="the place at which it begins; null if unknown")
    started_at: str | None
    ended_at: str | None
    reason: str | None = Field(description="why it ended badly")
    resumed_from: str | None = Field(description="why the attempt before had ended, if this one followed by itself")


class Curves(BaseModel):
    """A part of a history, thinned to what a chart can show."""

    names: list[ReportedNumber] = Field(description="what there is, the most recent first; at most 200")
    more_names: int = Field(description="how many others were met")
    x: str | None = Field(description="over what the curves are drawn; null: over the order of their lines")
    times: str = Field(
        description="who says when a line was written: lines (each itself), samples (of the job's use), both, or none"
    )
    within_s: float | None = Field(description="how far a time from the samples may be off, in seconds")
    curves: list[PlottedCurve]
    sections: list[AttemptPart]
    slice: int
    slices: int = Field(description="in how many slices all of it can be read")
    until: int = Field(description="the place up to which there was something")
    live_from: int = Field(description="the place at which the file begins that the job writes to now")
    lines: int
    bad_lines: int = Field(description="how many of the lines were no JSON objects")
    left_out_bytes: int = Field(description="what no slice shows, since it is too much")
    problem: str


@router.get(f"{JOB_PATH}/curves", dependencies=[may_read_log])
async def curves(
    address: Address,
    what: History = History.progress,
    name: Annotated[
        list[str] | None,
        Query(max_length=MOST_CURVES, description="whose points to return; some that are worth a look by default"),
    ] = None,
    x: Annotated[str | None, Query(max_length=200, description="over what to draw them, such as step")] = None,
    slice: Annotated[int, Query(ge=0, description="of a history that is too large to be read at once")] = 0,
    until: Annotated[int | None, Query(ge=0, description="that of the first slice, for all further ones")] = None,
) -> Curves:
    """
    Return the curves of a job: of what it has reported in PROGRESS_FILE, or of what it has used.

    A history that is large is read in slices. Each has points from all over it, so the first shows the whole roughly.
    """
    handle = await run_in_threadpool(job_of, address)
    request: dict[str, Any] = {"job_id": handle.job_id, "what": what.value, "slice": slice}
    if name:
        request["names"] = name
    if x is not None:
        request["x"] = x
    if until is not None:
        request["until"] = until
    reply = await ask(handle.gpu_cluster_conn_id, "read-series", request)
    return await run_in_threadpool(_shown, Curves.model_validate(reply))


def _shown(found: Curves) -> Curves:
    """Hide Airflow's secrets in the texts of an answer, not in its thousands of numbers."""
    hidden = iter(shown([*(one.name for one in found.names), *(one.name for one in found.curves), found.problem]))
    for number in found.names:
        number.name = next(hidden)
    for curve in found.curves:
        curve.name = next(hidden)
    found.problem = next(hidden)
    return found
