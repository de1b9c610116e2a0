"""
The routes as a page, ``/gpu-cluster/api/docs``, where Airflow's own are shown (``[api] enable_swagger_ui``).

Airflow's page loads its program from a public host. This one is text alone, so that it needs no program, works without
the Internet, and keeps the content security policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from airflow.sdk.configuration import conf
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from airflow_provider_gpu_cluster.plugins.ui_files import fingerprint

router = APIRouter()
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """Show all routes."""
    if not conf.getboolean("api", "enable_swagger_ui", fallback=True):
        raise HTTPException(404, "This Airflow shows no documentation of its API: [api] enable_swagger_ui is off.")
    return HTMLResponse("".join(_page(request.app.openapi())), headers={"Content-Security-Policy": _POLICY})


def _page(told: Mapping[str, Any]) -> Iterator[str]:
    title = escape(told["info"]["title"])
    yield f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}: REST API</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<link rel="stylesheet" href="../ui/{fingerprint()}/docs.css"></head><body><main><h1>{title}: REST API</h1>'
    yield f"<p>{escape(told['info'].get('description', ''))} All of this as data: "
    yield '<a href="openapi.json">openapi.json</a>.</p>'
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            yield from _route(method.upper(), f"/gpu-cluster{path}", route)
    yield "</main></body></html>"


def _route(method: str, path: str, route: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2><b>{method}</b> <code>{escape(path)}</code></h2>"
    for paragraph in route.get("description", "").split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    parameters = route.get("parameters", [])
    if parameters:
        yield "<table><thead><tr><th>Parameter</th><th>In</th><th>Type</th><th>Means</th></tr></thead><tbody>"
        for one in parameters:
            cells = (one["name"], one["in"], _type(one.get("schema", {})), _meaning(one))
            yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        yield "</tbody></table>"
    answers = [f"{status} {answer.get('description', '')}" for status, answer in route.get("responses", {}).items()]
    yield f"<ul>{''.join(f'<li>{escape(answer)}</li>' for answer in answers)}</ul></section>"


def _type(schema: Mapping[str, Any]) -> str:
    kinds = [str(one.get("type", "")) for one in schema.get("anyOf", [schema])]
    items = schema.get("items", {}).get("type", "")
    return " or ".join(filter(None, (f"{kind} of {items}" if kind == "array" and items else kind for kind in kinds)))


def _meaning(parameter: Mapping[str, Any]) -> str:
    schema = parameter.get("schema", {})
    default = schema.get("default")
    words = [parameter.get("description") or schema.get("description") or ""]
    if parameter.get("required"):
        words.append("required")
    elif default is not None:
        words.append(f"default: {default}")
    return "; ".join(filter(None, words))
