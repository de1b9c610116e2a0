"""Jobs on a real Slurm about which nobody asks any more."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.gpu_run.engines.slurm.test_jobs import HOLD, job_file, slurm_job, slurm_jobs
from tests.harness.jobs import submit, wait
from tests.servers.login_node import LoginNode

pytestmark = pytest.mark.xdist_group("slurm")


def end_of(cluster: Cluster, job_id: str) -> Any:
    """Return the record of the end of a job, without asking about the job."""
    path = job_file(cluster, job_id, ".job", "attempts", "1", "exit.json")
    return json.loads(path.read_text()) if path.exists() else None


def test_one_that_runs_ends_and_one_that_waited_so_long_does_not_start(
    cluster: Cluster, login_node: LoginNode, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    runs = submit(cluster, HOLD, job_id="runs", orphan_timeout_s=2.0).handle.job_id
    submit(cluster, f"touch {tmp_path}/ran", job_id="waits", sbatch_options=("--hold",), orphan_timeout_s=3600.0)
    assert wait(cluster, runs, JobState.RUNNING).orphan_timeout_s == 2.0
    held = slurm_job(cluster, login_node, "waits")
    os.utime(job_file(cluster, "waits", ".job", "asked"), (time.time() - 7200,) * 2)
    login_node.slurm.run("scontrol", "release", held, check=True)
    for job_id in ("runs", "waits"):
        end = eventually(lambda job_id=job_id: end_of(cluster, job_id))
        assert (end["state"], end["reason"]) == ("CANCELLED", "orphaned")
    assert end["message"].endswith("it was not started")
    assert not (tmp_path / "ran").exists()
    eventually(lambda: not slurm_jobs(login_node, "pending,running"))
    assert wait(cluster, runs).reason == "orphaned"
