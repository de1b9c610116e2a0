"""Jobs of a whole Airflow that are waited for in the triggerer."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.job import JobState
from airflow_provider_gpu_cluster.log_relay import visible
from tests.real_sshd import RealSshd
from tests.whole_airflow.conftest import Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = pytest.mark.xdist_group("whole-airflow")


def test_a_sensor_needs_no_worker_at_all(lab: Lab) -> None:
    run_id = lab.start("deferred_sensor")
    assert lab.end("deferred_sensor", run_id) == "success"
    lines = [f"line {number}" for number in range(1, 31)]
    assert lab.output("deferred_sensor", run_id, "no_worker") == lines
    assert lab.output("deferred_sensor", run_id, "two_workers") == lines
    assert lab.log("deferred_sensor", run_id, "no_worker") == []
    assert lab.log("deferred_sensor", run_id, "two_workers").count("Pausing task as DEFERRED. ") == 1
    handle = lab.xcom("deferred_sensor", run_id, "train")
    assert lab.xcom("deferred_sensor", run_id, "no_worker") == handle
    assert lab.xcom("deferred_sensor", run_id, "two_workers") == handle
    assert lab.xcom("deferred_sensor", run_id, "no_worker", "gpu_job_link")


def test_a_failed_job_fails_its_task_with_its_class(lab: Lab) -> None:
    run_id = lab.start("deferred_failure")
    assert lab.end("deferred_failure", run_id) == "failed"
    assert lab.output("deferred_failure", run_id, "train") == ["last words"]
    file = next(lab.airflow.logs.glob(f"dag_id=deferred_failure/run_id={run_id}/task_id=train/attempt=1.log"))
    assert "GpuJobFailed" in file.read_text()


def test_execution_timeout_holds_while_deferred(lab: Lab, lab_cluster: Cluster, eventually: Any) -> None:
    run_id = lab.start("deferred_time_out")
    handle = lab.handle("deferred_time_out", run_id)
    assert lab.end("deferred_time_out", run_id) == "failed"
    status = eventually(lambda: (now := lab_cluster.statuses([handle["job_id"]])[0]).final and now)
    assert status.state is JobState.CANCELLED


@pytest.mark.parametrize("how", ["failed", "success", "clear"])
def test_a_user_who_ends_a_deferred_task_ends_its_job(
    how: str, lab: Lab, lab_cluster: Cluster, eventually: Any
) -> None:
    run_id = lab.start("deferred_long_job")
    handle = lab.handle("deferred_long_job", run_id)
    eventually(lambda: lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING)
    lab.until("the deferral", lambda: lab.task_state("deferred_long_job", run_id) == "deferred")
    # A child of the job's own shell, two processes below its supervisor.
    said = lab.until("the job's first line", lambda: lab.output("deferred_long_job", run_id, "train"))
    child = int(said[0].split()[1])
    assert _runs(child)
    if how == "clear":
        lab.clear("deferred_long_job", run_id)
    else:
        lab.mark("deferred_long_job", run_id, how)
    status = eventually(lambda: (now := lab_cluster.statuses([handle["job_id"]])[0]).final and now, timeout_s=60)
    assert status.state is JobState.CANCELLED
    assert "a user" in status.message
    assert not _runs(child)
    if how == "clear":
        # It has its own job now, which is left alone.
        second = lab.until("the next try", lambda: _other(lab.xcom("deferred_long_job", run_id, "train"), handle))
        lab.until("its deferral", lambda: lab.task_state("deferred_long_job", run_id) == "deferred")
        assert lab_cluster.statuses([second["job_id"]])[0].state in (JobState.QUEUED, JobState.RUNNING)
        lab.mark("deferred_long_job", run_id, "failed")
        eventually(lambda: lab_cluster.statuses([second["job_id"]])[0].final, timeout_s=60)


@pytest.mark.parametrize("how", ["failed", "success", "clear"])
def test_a_task_that_no_triggerer_has_taken_yet_ends_its_job_too(
    how: str, lab: Lab, lab_cluster: Cluster, eventually: Any
) -> None:
    lab.airflow.stop_component("triggerer")
    try:
        run_id = lab.start("deferred_long_job")
        handle = lab.handle("deferred_long_job", run_id)
        lab.until("the deferral", lambda: lab.task_state("deferred_long_job", run_id) == "deferred")
        eventually(lambda: lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING)
        if how == "clear":
            lab.clear("deferred_long_job", run_id)
        else:
            lab.mark("deferred_long_job", run_id, how)
        status = eventually(lambda: (now := lab_cluster.statuses([handle["job_id"]])[0]).final and now, timeout_s=60)
        assert status.state is JobState.CANCELLED
    finally:
        if how == "clear":
            lab.until("the next deferral", lambda: lab.task_state("deferred_long_job", run_id) == "deferred")
            lab.mark("deferred_long_job", run_id, "failed")
        lab.airflow.start_component("triggerer")


def test_a_killed_triggerer_costs_no_line_and_repeats_none(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.start("deferred_output")
    handle = lab.handle("deferred_output", run_id)
    for _ in range(2):
        before = len(lab.output("deferred_output", run_id, "train"))
        lab.until("output", lambda: len(lab.output("deferred_output", run_id, "train")) > before + 50)
        lab.airflow.kill_component("triggerer")
        assert not lab_cluster.statuses([handle["job_id"]])[0].final
        lab.airflow.start_component("triggerer")
    assert lab.end("deferred_output", run_id) == "success"
    shown = lab.output("deferred_output", run_id, "train")
    log = lab.folder / "ml-jobs" / handle["job_id"] / "logs/training.log"
    assert shown == [visible(line) for line in log.read_bytes().split(b"\n")]
    assert lab.runs(handle["job_id"]) == 1
    progress = [
        record["event"]
        for record in lab.triggerer_log("deferred_output", run_id, "train")
        if record["event"].startswith("GPU job progress: ")
    ]
    assert progress[-1] == "GPU job progress: step 700 of 700 (100%)"
    assert any(re.search(r"step \d+ of 700 \(\d+%\), \d+ steps/s, \d+ s left", line) for line in progress)


def test_a_triggerer_that_is_stopped_leaves_the_job_alone(lab: Lab, lab_cluster: Cluster, eventually: Any) -> None:
    run_id = lab.start("deferred_long_job")
    handle = lab.handle("deferred_long_job", run_id)
    lab.until("the job's first line", lambda: lab.output("deferred_long_job", run_id, "train"))
    lab.airflow.stop_component("triggerer")
    lab.airflow.start_component("triggerer")
    lab.until("the next trigger", lambda: len(_starts(lab.triggerer_log("deferred_long_job", run_id, "train"))) == 2)
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING
    lab.mark("deferred_long_job", run_id, "failed")
    eventually(lambda: lab_cluster.statuses([handle["job_id"]])[0].final, timeout_s=60)


def test_fifty_jobs_survive_cut_connections_and_a_restart_of_sshd(lab: Lab, sshd: RealSshd) -> None:
    run_id = lab.start("deferred_many")
    sensors = [f"done_{number}" for number in range(50)]
    lab.until("fifty watched jobs", lambda: all(lab.output("deferred_many", run_id, sensor) for sensor in sensors))
    for _ in range(3):
        lab.proxy.cut_now()
        time.sleep(1)
    sshd.stop()
    time.sleep(2)
    sshd.start()
    time.sleep(2)
    lab.proxy.cut_now()
    assert lab.end("deferred_many", run_id) == "success"
    for number, sensor in enumerate(sensors):
        assert lab.output("deferred_many", run_id, sensor) == [f"{number}: line {line}" for line in range(1, 26)]
        assert lab.log("deferred_many", run_id, sensor) == []


def _starts(records: list[dict[str, Any]]) -> list[str]:
    return [record["event"] for record in records if record["event"].endswith("starting")]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _other(handle: Any, first: Any) -> Any:
    return handle if handle is not None and handle["job_id"] != first["job_id"] else None
