"""Where the job of a task is shown in Airflow's UI."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.tasks.links import full_job_url, full_task_url, job_url, tell_page

WHERE: dict[str, Any] = {"dag_id": "lab", "run_id": "manual__1", "task_id": "train", "map_index": None}
TASK = "/dags/lab/runs/manual__1/tasks/train"


@pytest.mark.parametrize(
    ("base_url", "path", "origin"),
    [
        ("", "", None),
        ("https://airflow.example.org", "", "https://airflow.example.org"),
        ("https://airflow.example.org/", "", "https://airflow.example.org"),
        ("https://example.org:8443/lab/airflow/", "/lab/airflow", "https://example.org:8443"),
    ],
)
def test_links_lead_to_where_airflow_is_served(
    base_url: str, path: str, origin: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert job_url(**WHERE) == f"{path}{TASK}/plugin/gpu-job"
    assert full_job_url(**WHERE) == (f"{origin}{path}{TASK}/plugin/gpu-job" if origin else "")
    assert full_task_url(**WHERE) == (f"{origin}{path}{TASK}" if origin else "")
    told: list[str] = []
    log = SimpleNamespace(info=lambda event, **fields: told.append(event))
    tell_page(SimpleNamespace(**WHERE), log, "job-1")
    assert told == ([f"GPU job in Airflow: {origin}{path}{TASK}/plugin/gpu-job"] if origin else [])


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ({"map_index": -1}, TASK),
        ({"map_index": 7}, f"{TASK}/mapped/7"),
        ({"task_id": "group.train"}, "/dags/lab/runs/manual__1/tasks/group.train"),
        (
            {"run_id": "scheduled__2026-01-01T00:00:00+00:00", "dag_id": "a/b c?"},
            "/dags/a%2Fb%20c%3F/runs/scheduled__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/train",
        ),
    ],
)
def test_names_stay_what_they_are(where: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "")
    assert job_url(**{**WHERE, **where}) == f"{path}/plugin/gpu-job"
