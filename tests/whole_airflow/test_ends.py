"""Runs of a whole Airflow that are ended as a whole, and what becomes of their jobs."""

from __future__ import annotations

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.whole_airflow.conftest import Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = pytest.mark.xdist_group("whole-airflow")


def test_a_run_that_a_user_marks_failed_fails_and_ends_its_job(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.early["group_of_long_job"]
    handle = lab.handle("group_of_long_job", run_id, "train.submit")
    lab.until("the wait", lambda: lab.task_state("group_of_long_job", run_id, "train.wait") == "up_for_reschedule")
    lab.mark_run("group_of_long_job", run_id, "failed")
    assert lab.end("group_of_long_job", run_id) == "failed"
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.CANCELLED
    states = {task["task_id"]: task["state"] for task in lab.airflow.tasks("group_of_long_job", run_id)}
    assert states == {
        "train.stage": "success",
        "train.submit": "success",
        "train.wait": "failed",
        "train.collect": "upstream_failed",
        "train.cancel": "success",
        "report": "upstream_failed",
    }


def test_a_run_that_exceeds_its_time_ends_the_job_of_its_group(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.early["group_times_out"]
    handle = lab.handle("group_times_out", run_id, "train.submit")
    assert lab.end("group_times_out", run_id) == "failed"
    assert lab.task_state("group_times_out", run_id, "train.cancel") == "skipped"
    lab.until("the end of its job", lambda: lab_cluster.statuses([handle["job_id"]])[0].final)
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.CANCELLED
