"""Retries of a whole Airflow."""

from __future__ import annotations

import pytest

from tests.whole_airflow.conftest import Lab

pytestmark = pytest.mark.xdist_group("whole-airflow")


def test_the_policy_retries_what_may_pass_and_nothing_else(lab: Lab) -> None:
    run_id = lab.early["retried_by_policy"]
    assert lab.end("retried_by_policy", run_id) == "failed"
    tries = {
        task["task_id"]: (task["state"], task["try_number"]) for task in lab.airflow.tasks("retried_by_policy", run_id)
    }
    assert tries == {"mistake": ("failed", 1), "fault": ("success", 2)}
    log = lab.log("retried_by_policy", run_id, "mistake")
    assert "Retry policy decision" in log


def test_the_retry_of_a_sensor_starts_the_next_attempt(lab: Lab) -> None:
    run_id = lab.early["resubmitted"]
    assert lab.end("resubmitted", run_id) == "success"
    tries = {task["task_id"]: task["try_number"] for task in lab.airflow.tasks("resubmitted", run_id)}
    assert tries == {"train": 1, "done": 2}
    job_id = lab.xcom("resubmitted", run_id, "train")["job_id"]
    lines = [line.split()[1:] for line in (lab.folder / "runs").read_text().splitlines() if line.startswith(job_id)]
    assert lines == [["1", "hush-hush"], ["2", "hush-hush"], ["3", "hush-hush"]]
