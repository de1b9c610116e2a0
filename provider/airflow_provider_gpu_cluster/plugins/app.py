"""The application that Airflow's API server runs for this package, below ``/gpu-cluster``."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import RequestResponseEndpoint

from airflow_provider_gpu_cluster.plugins.api.router import router as api
from airflow_provider_gpu_cluster.plugins.metrics_page import router as metrics
from airflow_provider_gpu_cluster.plugins.ui_files import UI, fingerprint
from airflow_provider_gpu_cluster.tasks.paths import job_path

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_UI_PATH = f"/ui/{fingerprint()}"

app = FastAPI(title="GPU jobs", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
app.mount(_UI_PATH, StaticFiles(directory=UI))
app.include_router(api)
app.include_router(metrics)


@app.middleware("http")
async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Forbid everything that the answers do not need, and keep job data out of caches."""
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    is_file = f"{_UI_PATH}/" in request.url.path and response.status_code == 200
    response.headers.setdefault("Cache-Control", "public, max-age=31536000, immutable" if is_file else "no-store")
    return response


@app.get("/job", include_in_schema=False)
async def old_address(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    element: Annotated[int | None, Query(ge=0)] = None,
) -> RedirectResponse:
    """Lead from where the page of a job was until it came into Airflow's own frame; old XComs and mails say so."""
    query = "" if element is None else f"?{urlencode({'element': element})}"
    base = request.scope.get("root_path", "").removesuffix("/gpu-cluster")
    return RedirectResponse(f"{base}{job_path(dag_id, run_id, task_id, map_index)}{query}")
