"""A whole Airflow (scheduler, DAG processor, triggerer, API server) against a cluster behind a real OpenSSH server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster, ClusterSettings
from airflow_provider_gpu_cluster.job import JobState
from tests.conftest import REPOSITORY
from tests.leftovers import kill_everything_under
from tests.real_sshd import RealSshd, login

sys.path.insert(0, str(REPOSITORY / "scripts"))
from whole_airflow import WholeAirflow

# One Airflow for all of these tests, so they belong into one process.
pytestmark = pytest.mark.xdist_group("whole-airflow")

RUN_TIMEOUT_S = 180


class Lab:
    """An Airflow and its cluster."""

    def __init__(self, airflow: WholeAirflow, settings: ClusterSettings, folder: Path) -> None:
        self.airflow = airflow
        self.settings = settings
        self.folder = folder

    def start(self, dag_id: str) -> str:
        """Start a run and return its id."""
        run_id = f"test_{uuid.uuid4().hex[:8]}"
        self.airflow.trigger(dag_id, run_id)
        return run_id

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        """Wait until a check gives something true, and return that."""
        with self.airflow.waiting(what, RUN_TIMEOUT_S) as ticks:
            for _ in ticks:
                if result := check():
                    return result
        raise AssertionError("not reached")

    def end(self, dag_id: str, run_id: str) -> str:
        """Wait until a run has ended and return its state."""
        ended = ("success", "failed")
        state: str = self.until(
            f"the end of {dag_id}", lambda: (now := self.airflow.state(dag_id, run_id)) in ended and now
        )
        return state

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task has pushed, None while it has not."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        entries = self.airflow.get(path)["xcom_entries"]
        if not any(entry["key"] == key for entry in entries):
            return None
        return self.airflow.get(f"{path}/{key}?deserialize=true")["value"]

    def handle(self, dag_id: str, run_id: str, task_id: str = "train") -> Any:
        """Wait for a task's job handle and return it; it comes while the task runs."""
        return self.until(f"the handle of {dag_id}", lambda: self.xcom(dag_id, run_id, task_id))

    def log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> list[str]:
        """Return the lines of a task's log."""
        file = self.airflow.logs / f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt={attempt}.log"
        return [json.loads(line)["event"] for line in file.read_text().splitlines()]

    def runs(self, job_id: str) -> int:
        """Return how often the user's code of a job has run."""
        return sum(line.split()[0] == job_id for line in (self.folder / "runs").read_text().splitlines())


@pytest.fixture(scope="module")
def lab(sshd: RealSshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("whole-airflow")
    dags = folder / "dags"
    shutil.copytree(REPOSITORY / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (REPOSITORY / "tests/whole_airflow_dags").glob("*.py"):
        shutil.copy(file, dags)
    (folder / "runs").touch()
    settings = ClusterSettings(
        conn_id="gpu_cluster_default",
        name=f"{login()}@{sshd.host}:{sshd.port}",
        root_dir=str(folder / "ml-jobs"),
        lease_dir=str(folder / "leases"),
        virtual_gpus=4,
    )
    connection = {
        "conn_type": "gpu_cluster",
        "host": sshd.host,
        "port": sshd.port,
        "login": login(),
        "extra": {
            "private_key": sshd.client_key,
            "host_key": sshd.host_key,
            "root_dir": settings.root_dir,
            "lease_dir": settings.lease_dir,
            "virtual_gpus": settings.virtual_gpus,
        },
    }
    environ = {
        "AIRFLOW_CONN_GPU_CLUSTER_DEFAULT": json.dumps(connection),
        "MODELS_DIR": str(folder / "models"),
        "TEST_RUNS": str(folder / "runs"),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # How soon a killed worker is noticed; five minutes by default.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    }
    try:
        with WholeAirflow(dags, environ, folder / "airflow.log", port=20000 + os.getpid() % 20000) as airflow:
            yield Lab(airflow, settings, folder)
    finally:
        kill_everything_under(folder)


@pytest.fixture
def lab_cluster(lab: Lab, ssh_connect: Any) -> Iterator[Cluster]:
    with Cluster(lab.settings, ssh_connect) as cluster:
        yield cluster


def test_the_main_job(lab: Lab) -> None:
    """A DAG stages a script and its data, trains on a leased GPU, and brings the model and its metrics home."""
    run_id = lab.start("gpu_train_digits")
    assert lab.end("gpu_train_digits", run_id) == "success"
    home = lab.folder / "models/gpu_train_digits" / run_id
    metrics = json.loads((home / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    assert (home / "model.pkl").stat().st_size > 10_000
    collected = lab.xcom("gpu_train_digits", run_id, "train.collect")
    assert collected["metrics"]["accuracy"] == metrics["accuracy"]
    lines = lab.log("gpu_train_digits", run_id, "train.wait")
    epochs = [line.split()[1] for line in lines if line.startswith("epoch")]
    assert epochs == [str(number) for number in range(1, 31)]
    states = {task["task_id"]: task["state"] for task in lab.airflow.tasks("gpu_train_digits", run_id)}
    assert set(states.values()) == {"success"}


def test_a_task_marked_failed_takes_its_job_with_it(lab: Lab, lab_cluster: Cluster, eventually: Any) -> None:
    run_id = lab.start("waits_for_long_job")
    handle = lab.handle("waits_for_long_job", run_id)
    eventually(lambda: lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING)
    lab.airflow.patch(f"/dags/waits_for_long_job/dagRuns/{run_id}/taskInstances/train", {"new_state": "failed"})
    status = eventually(lambda: (now := lab_cluster.statuses([handle["job_id"]])[0]).final and now, timeout_s=60)
    assert status.state is JobState.CANCELLED
    assert lab.runs(handle["job_id"]) == 1


def test_a_killed_worker_is_retried_and_finds_its_job_again(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.start("waits_for_short_job")
    handle = lab.handle("waits_for_short_job", run_id)
    lab.until("the first lines", lambda: "line 5" in lab.log("waits_for_short_job", run_id, "train"))
    for pid in _task_processes(run_id):
        os.kill(pid, signal.SIGKILL)
    assert lab.end("waits_for_short_job", run_id) == "success"
    assert lab.handle("waits_for_short_job", run_id) == handle
    assert lab.runs(handle["job_id"]) == 1
    again = lab.log("waits_for_short_job", run_id, "train", attempt=2)
    assert any("found again" in line for line in again)
    lines = [line for line in lab.log("waits_for_short_job", run_id, "train") + again if line.startswith("line ")]
    assert set(lines) == {f"line {number}" for number in range(1, 101)}
    # What the killed worker had shown but not acknowledged comes once more: at most what one look brought.
    assert len(lines) <= 130


def test_a_cleared_task_starts_a_new_job(lab: Lab) -> None:
    run_id = lab.start("waits_for_short_job")
    assert lab.end("waits_for_short_job", run_id) == "success"
    first = lab.handle("waits_for_short_job", run_id)
    lab.airflow.post(
        "/dags/waits_for_short_job/clearTaskInstances",
        {"dry_run": False, "dag_run_id": run_id, "task_ids": ["train"], "only_failed": False},
    )
    lab.until("the clear", lambda: lab.airflow.state("waits_for_short_job", run_id) != "success")
    assert lab.end("waits_for_short_job", run_id) == "success"
    second = lab.handle("waits_for_short_job", run_id)
    assert second["job_id"] != first["job_id"]
    assert [lab.runs(job["job_id"]) for job in (first, second)] == [1, 1]


def test_the_link_shows_the_job_while_it_runs(lab: Lab, lab_cluster: Cluster) -> None:
    run_id = lab.start("waits_for_long_job")
    handle = lab.handle("waits_for_long_job", run_id)
    path = f"/dags/waits_for_long_job/dagRuns/{run_id}/taskInstances/train/links"
    link = lab.until("the link", lambda: lab.airflow.get(path)["extra_links"].get("GPU job"))
    page = lab.airflow.page(link)
    assert handle["job_id"] in page
    lab_cluster.cancel([handle["job_id"]], requested_by="test")
    assert lab.end("waits_for_long_job", run_id) == "failed"


def test_the_button_tests_the_connection(lab: Lab, sshd: RealSshd) -> None:
    extra = {"private_key": sshd.client_key, "host_key": sshd.host_key, "virtual_gpus": 4}
    places = {"root_dir": lab.settings.root_dir, "lease_dir": lab.settings.lease_dir}
    body = {
        "connection_id": "lab",
        "conn_type": "gpu_cluster",
        "host": sshd.host,
        "port": sshd.port,
        "login": login(),
        "extra": json.dumps({**extra, **places}),
    }
    answer = lab.airflow.post("/connections/test", body)
    assert answer["status"] is True, answer
    assert "4" in answer["message"]
    answer = lab.airflow.post("/connections/test", {**body, "port": 1})
    assert answer["status"] is False
    assert "nothing accepts connections on port 1" in answer["message"]


def _task_processes(run_id: str) -> list[int]:
    """Return the processes that execute a run's tasks: they hold the run's log file open."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            links = [os.readlink(file) for file in (folder / "fd").iterdir()]
        except OSError:
            continue
        if any(f"run_id={run_id}" in link for link in links):
            found.append(int(folder.name))
    assert found
    return found
