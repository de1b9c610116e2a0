"""Jobs of a whole Airflow that are waited for by workers."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.servers.sshd import RealSshd, login
from tests.whole_airflow.conftest import Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", autouse=True)
def killed(lab: Lab) -> tuple[str, dict[str, Any]]:
    """Return a run whose worker was killed, and its job. Airflow notices that late, so it is done before all else."""
    run_id = lab.start("waits_for_short_job")
    handle = lab.handle("waits_for_short_job", run_id)
    lab.until("the first lines", lambda: "line 5" in lab.log("waits_for_short_job", run_id, "train"))
    for pid in _task_processes(run_id):
        os.kill(pid, signal.SIGKILL)
    return run_id, handle


def test_the_main_job(lab: Lab) -> None:
    """A DAG stages a script and its data, trains on a leased GPU, and brings the model and its metrics home."""
    run_id = lab.early["gpu_train_digits"]
    assert lab.end("gpu_train_digits", run_id) == "success"
    home = lab.folder / "models/gpu_train_digits" / run_id
    metrics = json.loads((home / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    assert (home / "model.pkl").stat().st_size > 10_000
    collected = lab.xcom("gpu_train_digits", run_id, "train.collect")
    assert collected["metrics"]["accuracy"] == metrics["accuracy"]
    lines = [record["event"] for record in lab.triggerer_log("gpu_train_digits", run_id, "train.wait")]
    for name in ("upload_bytes", "download_bytes", "connections_opened", "watched_jobs"):
        lab.until(name, functools.partial(lab.statsd.of, f"gpu_cluster.{name}", "conn_id=gpu_cluster_default"))
    epochs = [line.split()[1] for line in lines if line.startswith("epoch")]
    assert epochs == [str(number) for number in range(1, 41)]
    states = {task["task_id"]: task["state"] for task in lab.airflow.tasks("gpu_train_digits", run_id)}
    assert set(states.values()) == {"success"}


def test_a_task_marked_failed_takes_its_job_with_it(lab: Lab, lab_cluster: Cluster, eventually: Any) -> None:
    run_id = lab.start("waits_for_long_job")
    handle = lab.handle("waits_for_long_job", run_id)
    eventually(lambda: lab_cluster.statuses([handle["job_id"]])[0].state is JobState.RUNNING)
    lab.mark("waits_for_long_job", run_id, "failed")
    status = eventually(lambda: (now := lab_cluster.statuses([handle["job_id"]])[0]).final and now, timeout_s=60)
    assert status.state is JobState.CANCELLED
    assert lab.runs(handle["job_id"]) == 1


@pytest.mark.long
def test_a_cleared_task_starts_a_new_job(lab: Lab) -> None:
    run_id = lab.start("waits_for_short_job")
    assert lab.end("waits_for_short_job", run_id) == "success"
    first = lab.handle("waits_for_short_job", run_id)
    lab.clear("waits_for_short_job", run_id)
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
    task = f"dags/waits_for_long_job/dagRuns/{run_id}/taskInstances/train"
    assert link == f"/dags/waits_for_long_job/runs/{run_id}/tasks/train/plugin/gpu-job"
    job = json.loads(lab.airflow.page(f"/gpu-cluster/api/{task}/job?wait_s=20"))
    assert (job["job_id"], job["state"]) == (handle["job_id"], "RUNNING")
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


def test_a_killed_worker_is_retried_and_finds_its_job_again(lab: Lab, killed: tuple[str, dict[str, Any]]) -> None:
    run_id, handle = killed
    assert lab.end("waits_for_short_job", run_id) == "success"
    assert handle.items() <= lab.handle("waits_for_short_job", run_id).items()
    assert lab.runs(handle["job_id"]) == 1
    again = lab.log("waits_for_short_job", run_id, "train", attempt=2)
    assert any("found again" in line for line in again)
    lines = [line for line in lab.log("waits_for_short_job", run_id, "train") + again if line.startswith("line ")]
    assert set(lines) == {f"line {number}" for number in range(1, 301)}
    # What the killed worker had shown but not acknowledged comes once more: at most what one look brought.
    assert len(lines) <= 330


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
