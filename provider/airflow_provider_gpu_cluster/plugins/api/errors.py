"""
Every failure below ``/gpu-cluster`` is one sentence for a person: ``{"detail": sentence, "looks_again": bool}``.

``looks_again`` says that the same request may soon be answered otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    JobConflictError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.plugins.shown import shown

log = logging.getLogger(__name__)

_SILENT = "The cluster has not answered in time."


class NotAnswered(BaseModel):
    """Why a request is not answered."""

    detail: str = Field(description="one sentence for a person")
    looks_again: bool = Field(description="whether the same request may soon be answered otherwise")


RESPONSES: Mapping[int | str, dict[str, object]] = {
    401: {"model": NotAnswered, "description": "nobody is logged in, and there is no valid token"},
    403: {"model": NotAnswered, "description": "the user may not see or do this"},
    404: {"model": NotAnswered, "description": "there is no such task instance or job"},
    409: {"model": NotAnswered, "description": "the job does not stand as it must for this"},
    503: {"model": NotAnswered, "description": "the cluster cannot be asked now"},
}


def failure(
    status: int, sentence: str, *, looks_again: bool = False, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return the answer that says so."""
    return JSONResponse({"detail": shown(sentence), "looks_again": looks_again}, status, headers=dict(headers or {}))


def answer_to(error: Exception) -> JSONResponse:
    """Return the answer for what has gone wrong."""
    if isinstance(error, HTTPException):
        looks_again = "Refresh" in (error.headers or {})
        return failure(error.status_code, str(error.detail), looks_again=looks_again, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return failure(422, _wrong_arguments(error))
    if isinstance(error, GpuClusterConnectionError):
        return failure(503, str(error), looks_again=True)
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return failure(503, _SILENT, looks_again=True)
    if isinstance(error, AirflowNotFoundException):
        return failure(404, str(error))
    if isinstance(error, GpuClusterError):
        return failure(_status_of(error), str(error))
    # Its text may hold anything, even a password, so it goes only to the API server's log.
    log.error("an unexpected error", exc_info=error)
    return failure(500, f"An unexpected {type(error).__name__} occurred; the API server's log has the details.")


def _status_of(error: GpuClusterError) -> int:
    if error.code == protocol.NO_SUCH_JOB:
        return 404
    if isinstance(error, InvalidJobError):
        return 422
    return 409 if isinstance(error, JobConflictError) else 502


def _wrong_arguments(error: RequestValidationError) -> str:
    """Return what is wrong with a request, without the values that came with it."""
    found = [f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in error.errors()[:3]]
    return f"The request is not as it should be: {'; '.join(found)}."


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return answer_to(error)


def add_handlers(app: FastAPI) -> None:
    """Answer so whatever goes wrong in an application; what is unexpected, :class:`.answers.Answers` sees to."""
    for kind in (HTTPException, RequestValidationError, GpuClusterError, AirflowNotFoundException, TimeoutError):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(asyncio.TimeoutError, _answer)
