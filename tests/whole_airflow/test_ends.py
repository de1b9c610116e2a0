"""Runs of a whole Airflow that are ended as a whole, and what becomes of their jobs."""

from __future__ import annotations

import contextlib
import time

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.servers.airflow import AirflowFailed
from tests.whole_airflow.conftest import Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]


def test_a_run_that_a_user_marks_failed_fails_and_ends_its_job(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.early["group_of_long_job"]
    handle = lab.handle("group_of_long_job", run_id, "train.submit")
    lab.until("the wait", lambda: lab.task_state("group_of_long_job", run_id, "train.wait") == "up_for_reschedule")
    lab.mark_run("group_of_long_job", run_id, "failed")
    assert lab.end("group_of_long_job", run_id) == "failed"
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.CANCELLED
    # By the API server or by the teardown: whichever has seen it first.
    once = {"jobs_submitted": 1, "jobs_started": 1, "jobs_ended cancelled": 1, "jobs_cancelled": 1}
    lab.until("the counts", lambda: lab.counted("group_of_long_job") == once)
    states = {task["task_id"]: task["state"] for task in lab.airflow.tasks("group_of_long_job", run_id)}
    assert states == {
        "train.stage": "success",
        "train.submit": "success",
        "train.wait": "failed",
        "train.collect": "upstream_failed",
        "train.cancel": "success",
        "report": "upstream_failed",
    }


@pytest.mark.long
def test_a_run_that_exceeds_its_time_ends_all_its_jobs_if_its_dag_says_so(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.start("steps_time_out")
    assert lab.end("steps_time_out", run_id) == "failed"
    job_ids = [folder.name for folder in lab.folder.glob("ml-jobs/steps_time_out-*")]
    assert len(job_ids) == 2
    lab.until("the end of its jobs", lambda: all(status.final for status in lab_cluster.statuses(job_ids)))
    assert {status.state for status in lab_cluster.statuses(job_ids)} == {JobState.CANCELLED}


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_group_outlasts_two_minutes_without_the_api_server(lab: Lab, how: str) -> None:
    dags = ("group_in_outage", "impatient_group_in_outage")
    runs = {dag_id: lab.start(dag_id) for dag_id in dags}
    for dag_id, run_id in runs.items():
        lab.handle(dag_id, run_id, "train.submit")
    if how == "killed":
        lab.airflow.kill_component("api-server")
    else:
        lab.airflow.freeze_component("api-server")
    time.sleep(120)
    if how == "killed":
        lab.airflow.start_component("api-server")
    else:
        lab.airflow.thaw_component("api-server")

    def answers() -> bool:
        with contextlib.suppress(AirflowFailed):
            return bool(lab.airflow.get("/dags?limit=1"))
        return False

    lab.until("the API server", answers)
    for dag_id, run_id in runs.items():
        # Airflow itself may take minutes to notice that a task has ended meanwhile.
        for _ in range(5):
            with contextlib.suppress(AirflowFailed):
                lab.end(dag_id, run_id)
                break
        states = {task["task_id"]: task["state"] for task in lab.airflow.tasks(dag_id, run_id)}
        assert set(states.values()) == {"success"}, states
        assert (lab.folder / "models" / run_id / "result").read_text() == "done\n"
