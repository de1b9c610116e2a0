"""What a request to Airflow's API server ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_gpu_cluster.plugins.end_request import part_to_delete, runs_marked_failed
from airflow_provider_gpu_cluster.plugins.marked_tasks import PartOfDag

RUNS = "/api/v2/dags/d/dagRuns"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (f"{RUNS}/r", {"state": "failed"}, [PartOfDag("d", "r")]),
        (f"{RUNS}/r", {"state": "failed", "note": "x"}, [PartOfDag("d", "r")]),
        (f"{RUNS}/manual__2026-01-02T03:04:05+00:00", {"state": "failed"}, ["manual__2026-01-02T03:04:05+00:00"]),
        (f"{RUNS}/with/slashes", {"state": "failed"}, ["with/slashes"]),
        (f"/base{RUNS}/r", {"state": "failed"}, ["r"]),
        (f"{RUNS}/r", {"state": "success"}, []),
        (f"{RUNS}/r", {"note": "failed"}, []),
        (f"{RUNS}/r", [], []),
        (f"{RUNS}/r/taskInstances/t", {"new_state": "failed", "state": "failed"}, []),
        (f"{RUNS}/r/taskGroupInstances/t", {"new_state": "failed"}, []),
        (
            "/api/v2/dags/~/dagRuns",
            {
                "actions": [
                    {
                        "action": "update",
                        "entities": [
                            {"dag_id": "d", "dag_run_id": "r1", "state": "failed"},
                            {"dag_id": "e", "dag_run_id": "r2", "state": "success"},
                        ],
                    },
                    {"action": "delete", "entities": ["r3", {"dag_run_id": "r4"}]},
                ]
            },
            [PartOfDag("d", "r1")],
        ),
        (RUNS, {"actions": [{"action": "update", "entities": [{"dag_run_id": "r1", "state": "failed"}]}]}, ["r1"]),
        (RUNS, {"actions": [None, {"action": "update", "entities": None}]}, []),
    ],
)
def test_runs_that_are_marked_failed(path: str, body: Any, expected: list[Any]) -> None:
    parts = [part if isinstance(part, PartOfDag) else PartOfDag("d", part) for part in expected]
    assert runs_marked_failed(path, json.dumps(body).encode()) == parts


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_a_body_that_is_no_json_marks_nothing(body: bytes) -> None:
    assert runs_marked_failed(f"{RUNS}/r", body) == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("DELETE", "/api/v2/dags/d", PartOfDag("d")),
        ("DELETE", f"{RUNS}/r", PartOfDag("d", "r")),
        ("DELETE", f"{RUNS}/r/taskInstances/g.t", PartOfDag("d", "r", "g.t")),
        ("DELETE", f"{RUNS}/r/taskInstances/t/3", PartOfDag("d", "r", "t")),
        ("DELETE", "/api/v2/connections/x", None),
        ("GET", "/api/v2/dags/d", None),
    ],
)
def test_what_is_deleted(method: str, path: str, expected: PartOfDag | None) -> None:
    assert part_to_delete(method, path) == expected
