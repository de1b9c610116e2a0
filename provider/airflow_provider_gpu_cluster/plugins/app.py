"""The application that Airflow's API server runs for this package, below ``/gpu-cluster``."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from airflow_provider_gpu_cluster import __version__
from airflow_provider_gpu_cluster.plugins.answers import Answers
from airflow_provider_gpu_cluster.plugins.api.errors import add_handlers
from airflow_provider_gpu_cluster.plugins.api.router import router as api
from airflow_provider_gpu_cluster.plugins.metrics_page import router as metrics
from airflow_provider_gpu_cluster.plugins.ui_files import PAGES, UI, fingerprint, needed
from airflow_provider_gpu_cluster.tasks.paths import job_path

_UI_PATH = f"/ui/{fingerprint()}"

app = FastAPI(
    title="GPU jobs",
    description="What the pages of GPU jobs show, for scripts. Tokens are Airflow's own, from POST /auth/token.",
    version=__version__,
    docs_url=None,
    redoc_url=None,
    openapi_url="/api/openapi.json",
)
add_handlers(app)
app.add_middleware(Answers, files=_UI_PATH)


@app.get(f"{_UI_PATH}/modules.js", include_in_schema=False)
def modules() -> Response:
    """Tell main.js which modules each page needs."""
    content = f"export const NEEDED = {json.dumps({page: needed(page) for page in PAGES})};\n"
    return Response(content, media_type="text/javascript")


app.mount(_UI_PATH, StaticFiles(directory=UI))
app.include_router(api)
app.include_router(metrics)


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
