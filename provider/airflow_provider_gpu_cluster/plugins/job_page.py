"""
The page of a GPU job in Airflow's API server: the job's current status, asked from its cluster.

``/gpu-cluster/job?dag_id=..&run_id=..&task_id=..&map_index=..`` is the page, and ``/gpu-cluster/job.json`` returns
the same as JSON. Both require a login that may read the DAG's task logs. The job is the one that the task
instance's XCom names, so a user cannot make the API server connect to a cluster, or show a job, of their own
choice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from sqlalchemy import select
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import RequestResponseEndpoint

from airflow_provider_gpu_cluster.gpu_run.protocol import job_ids
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.job_lookup import JobLookup
from airflow_provider_gpu_cluster.plugins.job_view import job_view
from airflow_provider_gpu_cluster.plugins.metrics_page import router as metrics
from airflow_provider_gpu_cluster.plugins.no_job import LOOKS_AGAIN, why_no_job
from airflow_provider_gpu_cluster.tasks.job_notes import HANDLE_XCOM_KEYS, read_note

UNREADABLE = "?"
# The page returns soon and says that the cluster is being asked; its script then waits longer.
PAGE_WAIT_S = 2.0
JSON_WAIT_S = 10.0
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

here = Path(__file__).parent
templates = Jinja2Templates(here / "templates")
lookup = JobLookup()
app = FastAPI(title="GPU jobs", docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=here / "static"))
app.include_router(metrics)


@dataclass(frozen=True)
class TaskInstanceId:
    """The task instance that the page is asked for."""

    dag_id: Annotated[str, Query(min_length=1)]
    run_id: Annotated[str, Query(min_length=1)]
    task_id: Annotated[str, Query(min_length=1)]
    map_index: Annotated[int, Query(ge=-1)] = -1
    element: Annotated[int | None, Query(ge=0, description="index in the array that the task launched")] = None

    @property
    def path(self) -> str:
        """Path of its page in Airflow's UI, relative to Airflow's own."""
        dag_id, run_id, task_id = (quote(part, safe="") for part in (self.dag_id, self.run_id, self.task_id))
        path = f"dags/{dag_id}/runs/{run_id}/tasks/{task_id}"
        return path if self.map_index < 0 else f"{path}/mapped/{self.map_index}"

    @property
    def query(self) -> str:
        """Query of the page of its job."""
        return urlencode({name: value for name, value in asdict(self).items() if name != "element"})


# Reads dag_id from the query, as TaskInstanceId does.
may_read = Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))


@app.middleware("http")
async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Forbid everything that the page does not need, and keep job data out of caches."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    if "/static/" not in request.url.path:
        response.headers["Cache-Control"] = "no-store"
    return response


@app.get("/job", dependencies=[may_read])
async def page(request: Request, ti: Annotated[TaskInstanceId, Depends()]) -> HTMLResponse:
    """Show the job of a task instance."""
    handle = await run_in_threadpool(job_of, ti)
    answer = await lookup.look(handle, wait_s=PAGE_WAIT_S)
    view = job_view(handle, answer, datetime.now(timezone.utc))
    return templates.TemplateResponse(request, "job.html", {"job": view, "ti": ti})


@app.get("/job.json", dependencies=[may_read])
async def page_data(ti: Annotated[TaskInstanceId, Depends()]) -> JSONResponse:
    """Return what the page shows; its script polls this while the job runs."""
    handle = await run_in_threadpool(job_of, ti)
    answer = await lookup.look(handle, wait_s=JSON_WAIT_S)
    return JSONResponse(job_view(handle, answer, datetime.now(timezone.utc)))


def job_of(ti: TaskInstanceId) -> JobHandle:
    """
    Return the job that the task instance launched.

    :raises HTTPException: 404: there is no such task instance, or it has not launched a job (yet).
    """
    where = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
    with create_session() as session:
        found = session.execute(select(TaskInstance.state).filter_by(**where)).first()
        stored = [_stored(session, key, where) for key in HANDLE_XCOM_KEYS]
    if found is None:
        raise HTTPException(404, "There is no such task instance in this Airflow.")
    handle = next(filter(None, map(_handle_in, stored)), None)
    if handle is None:
        odd = any(value is not None for value in stored)
        sentence = why_no_job(None if found.state is None else str(found.state), odd=odd)
        # The script of an open page, and a browser that shows only this sentence, look again or stop.
        headers = {"Refresh": "5"} if LOOKS_AGAIN in sentence else None
        raise HTTPException(404, sentence, headers=headers)
    if job_ids.fault_of(handle.job_id) is not None:
        raise HTTPException(404, "The job handle in this task's XCom does not name a job.")
    if ti.element is None:
        return handle
    if not isinstance(handle.array_size, int) or ti.element >= handle.array_size:
        raise HTTPException(404, f"The job of this task has no element {ti.element}.")
    return handle.element(ti.element)


def _stored(session: Any, key: str, where: dict[str, Any]) -> Any:
    """Return an XCom of the task as it is stored; None if there is none. Nothing in it builds objects here."""
    try:
        return session.scalar(select(XComModel.value).filter_by(**where).where(XComModel.key == key))
    except (ValueError, RecursionError):
        return UNREADABLE


def _handle_in(value: Any) -> JobHandle | None:
    try:
        return JobHandle.from_json(read_note(value))
    except (ValueError, RecursionError):
        return None


@app.exception_handler(StarletteHTTPException)
async def refuse(request: Request, error: StarletteHTTPException) -> Response:
    """Explain in one sentence why there is nothing to show."""
    if request.url.path.endswith("/job"):
        come_back = urlencode({"next": f"{request.url.path}?{request.url.query}"})
        login = f"../api/v2/auth/login?{come_back}" if error.status_code == 401 else None
        context = {"status_code": error.status_code, "sentence": error.detail, "login": login}
        return templates.TemplateResponse(request, "notice.html", context, error.status_code, error.headers)
    looks_again = "Refresh" in (error.headers or {})
    return JSONResponse({"detail": error.detail, "looks_again": looks_again}, error.status_code, error.headers)


@app.exception_handler(RequestValidationError)
async def refuse_parameters(request: Request, error: RequestValidationError) -> Response:
    """Name the parameters that are missing or wrong."""
    names = ", ".join(str(item["loc"][-1]) for item in error.errors())
    return await refuse(request, StarletteHTTPException(422, f"Missing or wrong in the address: {names}."))
