"""What scripts are told about the routes."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.plugins.app import app
from tests.harness.api_server import API


def test_every_route_is_described_with_its_failures(server: TestClient) -> None:
    told = server.get(f"{API}/openapi.json").json()
    shown = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    assert set(told["paths"]) == {route.path for route in shown}
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            assert route["description"], (method, path)
    detail = told["components"]["schemas"]["JobDetail"]["properties"]
    assert {"state", "queue", "acts", "may"} <= set(detail)
    cancel = told["paths"]["/api/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/job/cancel"]["post"]
    assert {"401", "403", "404", "409", "503"} <= set(cancel["responses"])


def test_they_are_a_page_without_any_program(server: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page = server.get(f"{API}/docs")
    assert page.status_code == 200
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r"<script|<style|style=|\son\w+=|https?://", page.text)
    assert "<b>POST</b> <code>/gpu-cluster/api/dags/{dag_id}/" in page.text
    (style,) = re.findall(r'href="\.\./(ui/[^"]+)"', page.text)
    assert server.get(f"{API.removesuffix('/api')}/{style}").status_code == 200
    monkeypatch.setenv("AIRFLOW__API__ENABLE_SWAGGER_UI", "False")
    assert server.get(f"{API}/docs").status_code == 404
