"""Retries of a whole Airflow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.whole_airflow.conftest import Lab

pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]


def test_the_policy_retries_what_may_pass_and_nothing_else(lab: Lab) -> None:
    run_id = lab.early["retried_by_policy"]
    assert lab.end("retried_by_policy", run_id) == "failed"
    tries = {
        task["task_id"]: (task["state"], task["try_number"]) for task in lab.airflow.tasks("retried_by_policy", run_id)
    }
    assert tries == {"mistake": ("failed", 1), "fine": ("success", 1), "fault": ("success", 2)}
    log = lab.log("retried_by_policy", run_id, "mistake")
    assert "Retry policy decision" in log


def test_an_end_is_told_by_the_callbacks_of_its_task_and_of_its_dag(lab: Lab) -> None:
    """Those of a task run in its own process, those of a DAG in the DAG processor."""
    run_id, resubmitted = lab.early["retried_by_policy"], lab.early["resubmitted"]

    def told() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {"/task": [], "/dag": [], "/retry": [], "/success": []}
        for path, _, body, _ in lab.hooks.requests:
            if path in found:
                found[path].append(json.loads(body))
        return found

    found = lab.until("the messages", lambda: list(map(len, (now := told()).values())) == [1, 2, 1, 1] and now)
    (by_task,), of_run, (by_retry,), (by_success,) = found.values()
    by_dag = next(message for message in of_run if message["event"] == "failed")
    assert next(message for message in of_run if message != by_dag)["event"] == by_success["event"] == "completed"
    for message in (by_task, by_dag):
        assert (message["event"], message["job"]["exit_code"]) == ("failed", 3)
        assert message["cluster"]["conn_id"] == "gpu_cluster_default"
        assert (message["task"]["run_id"], message["task"]["task_id"]) == (run_id, "mistake")
    assert by_task["event_id"] == by_dag["event_id"]
    assert by_retry["event"] == "system_error"
    assert by_retry["verdict"]["reason"] == "lost"
    assert (by_retry["task"]["run_id"], by_retry["task"]["will_retry"]) == (resubmitted, True)


def test_the_retry_of_a_sensor_starts_the_next_attempt(lab: Lab) -> None:
    run_id = lab.early["resubmitted"]
    assert lab.end("resubmitted", run_id) == "success"
    tries = {task["task_id"]: task["try_number"] for task in lab.airflow.tasks("resubmitted", run_id)}
    assert tries == {"train": 1, "done": 2}
    job_id = lab.xcom("resubmitted", run_id, "train")["job_id"]
    lines = [line.split()[1:] for line in (lab.folder / "runs").read_text().splitlines() if line.startswith(job_id)]
    assert lines == [["1", "hush-hush"], ["2", "hush-hush"], ["3", "hush-hush"]]
