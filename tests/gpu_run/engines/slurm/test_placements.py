"""Jobs on a real Slurm that were placed on it, and then on another cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.gpu_run.engines.slurm.test_jobs import job_file, slurm_job, slurm_jobs
from tests.harness.jobs import submit, wait
from tests.servers.login_node import LoginNode

pytestmark = pytest.mark.xdist_group("slurm")

HERE: Placement = {"epoch": 1, "key": "a", "conn_id": "slurm-a"}
ELSEWHERE: Placement = {"epoch": 2, "key": "a", "conn_id": "gpu01"}


def test_what_waits_is_taken_back_and_does_not_run_where_that_is_impossible(
    cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    held: dict[str, str] = {}
    for job_id, placement in (("back", HERE), ("stays", HERE), ("late", {**HERE, "start_by": time.time() + 3600})):
        command = f"touch {tmp_path}/{job_id}"
        submit(cluster, command, job_id=job_id, sbatch_options=("--hold",), placement=placement)  # type: ignore[arg-type]
        held[job_id] = slurm_job(cluster, login_node, job_id)
    assert cluster.place("back", ELSEWHERE, "fence")["outcome"] == "launched"
    assert cluster.place("back", ELSEWHERE, "withdraw")["outcome"] == "ended"
    eventually(lambda: held["back"] not in slurm_jobs(login_node, "pending,running"))
    # Slurm cannot be told, and starts it.
    login_node.replace("scancel", "exit 1")
    assert cluster.place("stays", ELSEWHERE, "withdraw")["outcome"] == "ended"
    login_node.restore()
    note = Path(cluster.settings.root_dir, ".gpu-run", "placements", "late.json")
    known = json.loads(note.read_text())
    known["start_by"]["at"] = time.time() - 1
    note.write_text(json.dumps(known))
    login_node.slurm.run("scontrol", "release", held["stays"], held["late"], check=True)
    for job_id, mark in (("back", "withdrawn"), ("stays", "withdrawn"), ("late", "expired")):
        status = wait(cluster, job_id)
        assert (status.state, status.placement) == (JobState.CANCELLED, mark)
        assert status.moved_to == (None if job_id == "late" else "gpu01")
        assert "moved to another cluster (gpu01)" in status.message or job_id == "late"
    eventually(lambda: not slurm_jobs(login_node, "pending,running"))
    assert list(tmp_path.glob("*")) == [path for path in tmp_path.glob("*") if path.is_dir()]
    assert not job_file(cluster, "late", "logs", "start_time.log").exists()
