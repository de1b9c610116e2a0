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
