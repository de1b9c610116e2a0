"""What each time limit does to a task and to its job: every row of the table in docs/timeouts.md, in a real Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from tests.conftest import REPOSITORY, connections_to
from tests.servers.sshd import RealSshd
from tests.whole_airflow.conftest import Lab
from tests.whole_airflow.dags.time_outs import DAGS, LIMIT

# One Airflow for all of these tests, so they belong into one process.
pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]

# All of these DAGs' tasks have a retry, which would begin after the test.
TASK_STATES = {"fails": "up_for_retry", "fails for good": "failed", "is skipped": "skipped", "waits on": "success"}
SETTLED = {*TASK_STATES.values(), "upstream_failed"}
JOB_STATES = {
    "ends as `time_limit`": {JobState.FAILED},
    "is cancelled": {JobState.CANCELLED},
    "**runs on**": {JobState.RUNNING, JobState.SUCCEEDED},
}


@dataclass(frozen=True)
class Row:
    """
    A row of the table.

    :param limit: what is over, and the DAG of which a run shows it.
    :param task: what the table says of the task.
    :param job: what it says of the job.
    """

    limit: str
    who_waits: str
    mode: str
    task: str
    job: str

    @property
    def task_ids(self) -> list[str]:
        """The tasks that do what this row says."""
        task_id = f"{'submit' if self.who_waits == 'submit and wait' else 'sensor'}_{self.mode}"
        return [task_id, f"{task_id}_from_worker"] if task_id == "sensor_deferrable" else [task_id]

    def __str__(self) -> str:
        return f"{self.limit}, {self.who_waits}, {self.mode}"


def test_a_run_that_exceeds_its_time_ends_the_job_of_its_group(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.early["group_times_out"]
    handle = lab.handle("group_times_out", run_id, "train.submit")
    assert lab.end("group_times_out", run_id) == "failed"
    assert lab.task_state("group_times_out", run_id, "train.cancel") == "skipped"
    lab.until("the end of its job", lambda: lab_cluster.statuses([handle["job_id"]])[0].final)
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.CANCELLED


def test_execution_timeout_holds_while_deferred(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.early["deferred_time_out"]
    handle = lab.handle("deferred_time_out", run_id)
    assert lab.end("deferred_time_out", run_id) == "failed"
    lab.until("the end of its job", lambda: lab_cluster.statuses([handle["job_id"]])[0].final)
    assert lab_cluster.statuses([handle["job_id"]])[0].state is JobState.CANCELLED


def rows() -> list[Row]:
    """Return the rows that users read."""
    lines = (REPOSITORY / "docs/timeouts.md").read_text().splitlines()
    (head,) = (number for number, line in enumerate(lines) if line.startswith("| Limit | Who waits |"))
    found = []
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            break
        limit, who_waits, mode, task, job, _ = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Row(limit.strip("`").replace(" ", "_"), who_waits, mode, task, job))
    return found


def test_the_table_has_a_row_for_each_task_that_is_run() -> None:
    told = sorted((row.limit, task_id) for row in rows() for task_id in row.task_ids)
    run = sorted((dag_id, task_id) for dag_id, dag in DAGS.items() for task_id in dag.task_ids if "_" in task_id)
    assert told == [task for task in run if not task[1].endswith("_guarded")]


class Settled:
    """Runs of all these DAGs, whose tasks have all come to what a time limit makes of them."""

    def __init__(self, lab: Lab, cluster: Cluster) -> None:
        self._lab = lab
        self._cluster = cluster
        self.runs = {dag_id: lab.start(dag_id) for dag_id in DAGS if dag_id != "deferral"}
        for dag_id in self.runs:
            self._until_settled(dag_id)
        lab.airflow.stop_component("triggerer")
        self.runs["deferral"] = lab.start("deferral")
        self._until_settled("deferral")
        lab.airflow.start_component("triggerer")

    def _until_settled(self, dag_id: str) -> None:
        run_id = self.runs[dag_id]

        def settled() -> bool:
            states = {task["task_id"]: task["state"] for task in self._lab.airflow.tasks(dag_id, run_id)}
            return all(state in SETTLED for state in states.values())

        self._lab.until(f"what becomes of the tasks of {dag_id}", settled)

    def state(self, dag_id: str, task_id: str) -> str | None:
        """Return what has become of a task."""
        return self._lab.task_state(dag_id, self.runs[dag_id], task_id)

    def error(self, dag_id: str, task_id: str) -> str:
        """Return the class with which a task has failed, as its log has it."""
        errors = [record["error_detail"] for record in self._records(dag_id, task_id) if "error_detail" in record]
        error: str = errors[-1][0]["exc_type"]
        return error

    def job(self, dag_id: str, task_id: str) -> JobStatus:
        """Return what has become of a task's job."""
        launcher = {"submit": task_id, "guarded": "launch_guarded"}
        kind, _, which = task_id.partition("_")
        handle = self._lab.handle(dag_id, self.runs[dag_id], launcher.get(kind) or launcher.get(which) or "launch")
        return self._cluster.statuses([handle["job_id"]])[0]

    def seconds(self, dag_id: str, task_id: str) -> float:
        """Return how long a task took, with all its pokes."""
        records = self._records(dag_id, task_id)
        began, ended = (datetime.fromisoformat(records[number]["timestamp"]) for number in (0, -1))
        return (ended - began).total_seconds()

    def _records(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        folder = self._lab.airflow.logs / f"dag_id={dag_id}/run_id={self.runs[dag_id]}/task_id={task_id}"
        return [json.loads(line) for line in (folder / "attempt=1.log").read_text().splitlines()]

    def end(self) -> None:
        """End what is left."""
        for dag_id, run_id in self.runs.items():
            self._lab.mark_run(dag_id, run_id, "failed")


@pytest.fixture(scope="module")
def settled(lab: Lab, sshd: RealSshd) -> Iterator[Settled]:
    with connections_to(sshd) as connect, Cluster(lab.settings, connect) as cluster:
        settled = Settled(lab, cluster)
        yield settled
        settled.end()


@pytest.mark.long
@pytest.mark.parametrize("row", rows(), ids=str)
def test_a_time_limit_does_what_its_row_says(settled: Settled, row: Row) -> None:
    what, _, error = row.task.partition(": ")
    for task_id in row.task_ids:
        assert settled.state(row.limit, task_id) == TASK_STATES[what], task_id
        if error:
            assert settled.error(row.limit, task_id) == error.strip("`"), task_id
        job = settled.job(row.limit, task_id)
        assert job.state in JOB_STATES[row.job], (task_id, job)
        if job.state is JobState.FAILED:
            assert job.reason == "time_limit", (task_id, job)
        if what == "waits on":
            assert settled.seconds(row.limit, task_id) > LIMIT.total_seconds(), task_id


@pytest.mark.long
def test_a_teardown_ends_the_job_of_a_sensor_whose_time_is_over(settled: Settled) -> None:
    assert settled.state("timeout", "sensor_guarded") == "failed"
    assert settled.job("timeout", "sensor_guarded").state is JobState.CANCELLED
