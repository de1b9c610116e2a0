"""Jobs of a whole Airflow that are waited for in the triggerer."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.logs.relay import visible
from tests.servers.sshd import RealSshd
from tests.whole_airflow.conftest import Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]


def test_a_sensor_needs_no_worker_at_all(lab: Lab) -> None:
    run_id = lab.early["deferred_sensor"]
    assert lab.end("deferred_sensor", run_id) == "success"
    lines = [f"line {number}" for number in range(1, 31)]
    assert lab.output("deferred_sensor", run_id, "no_worker") == lines
    assert lab.output("deferred_sensor", run_id, "two_workers") == lines
    assert lab.log("deferred_sensor", run_id, "no_worker") == []
    assert lab.log("deferred_sensor", run_id, "two_workers").count("Pausing task as DEFERRED. ") == 1
    handle = lab.xcom("deferred_sensor", run_id, "train")
    result = lab.xcom("deferred_sensor", run_id, "no_worker")
    assert result.items() > handle.items()
    assert result.keys() - handle.keys() == {"usage", "seconds"}
    assert lab.xcom("deferred_sensor", run_id, "two_workers") == result
    assert lab.xcom("deferred_sensor", run_id, "no_worker", "gpu_job_link")


def test_a_failed_job_fails_its_task_with_its_class(lab: Lab) -> None:
    run_id = lab.early["deferred_failure"]
    assert lab.end("deferred_failure", run_id) == "failed"
    assert lab.output("deferred_failure", run_id, "train") == ["last words"]
    file = next(lab.airflow.logs.glob(f"dag_id=deferred_failure/run_id={run_id}/task_id=train/attempt=1.log"))
    assert "GpuJobFailed" in file.read_text()
    once = {"jobs_submitted": 1, "jobs_started": 1, "jobs_ended user_error": 1, "jobs_failed": 1}
    lab.until("the counts", lambda: lab.counted("deferred_failure") == once)


class LongJobs:
    """Three runs of one task that waits, deferred, for a job that takes long: one for each way to end it."""

    ways = ("failed", "success", "clear")

    def __init__(self, lab: Lab, cluster: Cluster, dag_id: str = "deferred_long_job") -> None:
        self.lab = lab
        self.dag_id = dag_id
        self.cluster = cluster
        self.runs = {how: lab.start(self.dag_id) for how in self.ways}
        self.handles = {how: lab.handle(self.dag_id, run_id) for how, run_id in self.runs.items()}
        for run_id in self.runs.values():
            lab.until_deferred(self.dag_id, run_id)
        self._until_all("the start of the jobs", lambda state: state is JobState.RUNNING)

    def end_all(self) -> None:
        """End each task in its way, and wait until no job runs any more."""
        self.lab.keep_trigger_ids()
        for how, run_id in self.runs.items():
            if how == "clear":
                self.lab.clear(self.dag_id, run_id)
            else:
                self.lab.mark(self.dag_id, run_id, how)
        self._until_all("the end of the jobs", lambda state: state is JobState.CANCELLED)

    def _until_all(self, what: str, check: Callable[[JobState], bool]) -> None:
        job_ids = [handle["job_id"] for handle in self.handles.values()]
        self.lab.until(what, lambda: all(check(status.state) for status in self.cluster.statuses(job_ids)))

    def end_the_cleared_one(self) -> None:
        """The next try has a job of its own, which is left alone until its task is ended, too."""
        run_id, first = self.runs["clear"], self.handles["clear"]
        handle = self.lab.until(
            "the next try's job", lambda: _other(self.lab.xcom(self.dag_id, run_id, "train"), first)
        )
        self.lab.until_deferred(self.dag_id, run_id)
        assert self.cluster.statuses([handle["job_id"]])[0].state in (JobState.QUEUED, JobState.RUNNING)
        self.lab.keep_trigger_ids()
        self.lab.mark(self.dag_id, run_id, "failed")
        self.lab.until("its end", lambda: self.cluster.statuses([handle["job_id"]])[0].final)


# A worker launches the first, as it does in the test below.
@pytest.mark.parametrize("dag_id", [pytest.param("deferred_long_job", marks=pytest.mark.long), "launched_by_trigger"])
def test_users_who_end_deferred_tasks_end_their_jobs(lab: Lab, lab_cluster: Cluster, dag_id: str) -> None:
    jobs = LongJobs(lab, lab_cluster, dag_id)
    for how, run_id in jobs.runs.items():
        # A child of the job's own shell, two processes below its supervisor.
        said = lab.until("the first line", functools.partial(lab.output, dag_id, run_id, "train"))
        assert _runs(int(said[0].split()[1])), how
    jobs.end_all()
    for how, run_id in jobs.runs.items():
        assert not _runs(int(lab.output(dag_id, run_id, "train")[0].split()[1])), how
    jobs.end_the_cleared_one()


def test_without_a_triggerer_jobs_live_and_users_can_still_end_them(lab: Lab, lab_cluster: Cluster) -> None:
    too_long = lab.start("deferred_run_times_out")
    run_id = lab.start("deferred_long_job")
    handle = lab.handle("deferred_long_job", run_id)
    lab.until("the launch", lambda: list(lab.folder.glob("ml-jobs/deferred_run_times_out-*")))
    lab.until("the job's first line", lambda: lab.output("deferred_long_job", run_id, "train"))
    lab.airflow.stop_component("triggerer")
    launched = set(lab.folder.glob("ml-jobs/launched_by_trigger-*"))
    too_early = lab.start("launched_by_trigger")
    lab.until_deferred("launched_by_trigger", too_early)
    lab.mark("launched_by_trigger", too_early, "failed")
    jobs = LongJobs(lab, lab_cluster)
    jobs.end_all()
    # This Airflow has no log-in, and everybody is of that name.
    acts = lab_cluster.audit(jobs.handles["failed"]["job_id"])["acts"]
    assert [line["by"] for line in acts if line["act"] == "cancel"] == ["Anonymous"]
    jobs.end_the_cleared_one()
    assert lab.end("deferred_run_times_out", too_long) == "failed"
    (job_id,) = [folder.name for folder in lab.folder.glob("ml-jobs/deferred_run_times_out-*")]
    lab.until("the end of its job", lambda: lab_cluster.statuses([job_id])[0].state is JobState.CANCELLED)
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING
    lab.airflow.start_component("triggerer")
    lab.until("the next trigger", lambda: len(_starts(lab.triggerer_log("deferred_long_job", run_id, "train"))) == 2)
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING
    lab.mark("deferred_long_job", run_id, "failed")
    lab.until("the job's end", lambda: lab_cluster.statuses([handle["job_id"]])[0].final)
    # What nobody waits for any more is not launched now, nor a little later.
    time.sleep(5)
    assert set(lab.folder.glob("ml-jobs/launched_by_trigger-*")) == launched


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_killed_triggerer_costs_no_line_and_repeats_none(lab: Lab, lab_cluster: Cluster, times: int) -> None:
    before = lab.counted("deferred_output")
    run_id = lab.start("deferred_output")
    handle = lab.handle("deferred_output", run_id)
    lab.until_more_is_shown("deferred_output", run_id)
    event_id = f"{handle['job_id']}/1/time_limit_in"

    def told() -> int:
        bodies = [json.loads(body) for path, _, body, _ in lab.hooks.requests if path == "/deferred"]
        return sum(body["event_id"] == event_id for body in bodies)

    lab.until("the message", told)
    for _ in range(times):
        lab.airflow.kill_component("triggerer")
        assert not lab_cluster.statuses([handle["job_id"]])[0].final
        lab.airflow.start_component("triggerer")
        lab.until_more_is_shown("deferred_output", run_id)
    (lab.folder / "ml-jobs" / handle["job_id"] / "outputs/stop").touch()
    assert lab.end("deferred_output", run_id) == "success"
    shown = lab.output("deferred_output", run_id, "train")
    log = lab.folder / "ml-jobs" / handle["job_id"] / "logs/training.log"
    assert shown == [visible(line) for line in log.read_bytes().split(b"\n")]
    assert lab.runs(handle["job_id"]) == 1
    # All triggerers have seen that it began, and one of them has told and counted it.
    assert told() == 1
    # A trigger that is made anew asks for the launch again.
    once = {"jobs_submitted": 1, "jobs_joined": times, "jobs_started": 1, "jobs_ended success": 1, "jobs_succeeded": 1}
    lab.until("the counts", lambda: lab.counted("deferred_output") - before == once)


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.long)])
def test_many_jobs_survive_cut_connections_and_a_restart_of_sshd(lab: Lab, sshd: RealSshd, count: int) -> None:
    dag_id = f"deferred_{count}"
    run_id = lab.start(dag_id)
    sensors = [f"done_{number}" for number in range(count)]
    lab.until("many watched jobs", lambda: all(lab.output(dag_id, run_id, sensor) for sensor in sensors))
    for _ in range(3):
        lab.proxy.cut_now()
        time.sleep(1)
    sshd.stop()
    time.sleep(2)
    sshd.start()
    time.sleep(2)
    lab.proxy.cut_now()
    assert lab.end(dag_id, run_id) == "success"
    for number, sensor in enumerate(sensors):
        assert lab.output(dag_id, run_id, sensor) == [f"{number}: line {line}" for line in range(1, 26)]
        assert lab.log(dag_id, run_id, sensor) == []


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
