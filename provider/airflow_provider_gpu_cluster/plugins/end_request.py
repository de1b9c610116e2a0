"""What a request to Airflow's API server ends: read from its method, path and body alone."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_provider_gpu_cluster.plugins.marked_tasks import PartOfDag

# The path has been decoded once; ids may hold anything, also a slash.
_RUNS = re.compile(r".*/dags/(?P<dag>[^/]+)/dagRuns(?:/(?P<run>.+))?")
_DELETED = re.compile(
    r".*/dags/(?P<dag>[^/]+)(?:/dagRuns/(?P<run>.+?)(?:/taskInstances/(?P<task>[^/]+)(?:/-?\d+)?)?)?/?"
)


def marks_tasks(method: str, path: str) -> bool:
    """Return whether a request may mark tasks: one or many, or a whole run."""
    return method == "PATCH" and "/dagRuns" in path


def part_to_delete(method: str, path: str) -> PartOfDag | None:
    """Return what a request deletes: a DAG, a run, or a task; None if it deletes none of these."""
    if method != "DELETE" or (match := _DELETED.fullmatch(path)) is None:
        return None
    return PartOfDag(match["dag"], match["run"], match["task"])


def runs_marked_failed(path: str, body: bytes) -> list[PartOfDag]:
    """Return the runs that a request marks failed."""
    match = _RUNS.fullmatch(path)
    if match is None or "/taskInstances" in path or "/taskGroupInstances" in path:
        return []
    try:
        asked = json.loads(body)
    except ValueError:
        return []
    if match["run"] is not None:
        return [PartOfDag(match["dag"], match["run"])] if _is_failed(asked) else []
    actions = asked.get("actions") if isinstance(asked, dict) else None
    entities = [
        entity
        for action in actions or ()
        if isinstance(action, dict) and action.get("action") == "update"
        for entity in action.get("entities") or ()
    ]
    return [
        PartOfDag(str(entity.get("dag_id") or match["dag"]), str(entity["dag_run_id"]))
        for entity in entities
        if _is_failed(entity) and entity.get("dag_run_id")
    ]


def _is_failed(asked: Any) -> bool:
    return isinstance(asked, dict) and asked.get("state") == "failed"
