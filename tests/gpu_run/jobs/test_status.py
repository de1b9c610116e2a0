"""How a job stands: never finished without proof, never unknown when it can be known."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuJobLost
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness.jobs import submit, wait


def test_a_running_job_says_where_and_on_what(cluster: Cluster) -> None:
    handle = submit(cluster, """echo '{"step": 40, "total": 100}' >> "$PROGRESS_FILE"; sleep 60""", gpus=2).handle
    status = wait(cluster, handle.job_id, JobState.RUNNING)
    while status.progress is None:
        status = cluster.statuses([handle.job_id])[0]
    assert status.progress == {"step": 40, "total": 100}
    assert status.gpus == (0, 1)
    assert status.pid is not None
    os.kill(status.pid, 0)
    assert status.started_at is not None


def test_a_job_whose_supervisor_was_killed_is_lost_and_its_gpus_are_free(cluster: Cluster) -> None:
    handle = submit(cluster, "sleep 1000", gpus=4).handle
    status = wait(cluster, handle.job_id, JobState.RUNNING)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    began = time.monotonic()
    lost = wait(cluster, handle.job_id)
    assert lost.state is JobState.LOST
    assert isinstance(lost.error("x"), GpuJobLost)
    assert Path(handle.job_dir, "outputs/FAILED").exists()
    after = submit(cluster, "true", gpus=4).handle
    assert wait(cluster, after.job_id).state is JobState.SUCCEEDED
    assert time.monotonic() - began < 60


def test_a_job_from_before_a_reboot_is_lost(cluster: Cluster) -> None:
    handle = submit(cluster, "sleep 1000").handle
    status = wait(cluster, handle.job_id, JobState.RUNNING)
    path = Path(handle.job_dir, ".job/attempts/1/claim.json")
    claim = json.loads(path.read_text())
    # After a reboot the process id may belong to anybody, here to this test.
    path.write_text(json.dumps({**claim, "boot": "an-older-boot", "pid": os.getpid()}))
    lost = cluster.statuses([handle.job_id])[0]
    assert (lost.state, lost.message) == (JobState.LOST, "the host was rebooted")
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)


def test_a_job_on_another_host_of_a_shared_home_is_unknown_not_lost(cluster: Cluster) -> None:
    handle = submit(cluster, "sleep 60").handle
    wait(cluster, handle.job_id, JobState.RUNNING)
    path = Path(handle.job_dir, ".job/attempts/1/claim.json")
    claim = json.loads(path.read_text())
    path.write_text(json.dumps({**claim, "host": "gpu-2"}))
    status = cluster.statuses([handle.job_id])[0]
    assert status.state is JobState.UNKNOWN
    assert "gpu-2" in status.message
    path.write_text(json.dumps(claim))
    assert cluster.statuses([handle.job_id])[0].state is JobState.RUNNING


def test_a_job_that_deletes_its_own_directory_fails_and_is_never_lost_sight_of(
    cluster: Cluster, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    handle = submit(cluster, f'rm -rf "$JOB_DIR"; until [ -e {gate} ]; do sleep 0.05; done').handle
    seen: set[JobState] = set()
    deadline = time.monotonic() + 30
    while not (status := cluster.statuses([handle.job_id])[0]).final:
        assert time.monotonic() < deadline, seen
        seen.add(status.state)
        if JobState.UNKNOWN in seen:
            gate.touch()
        time.sleep(0.05)
    assert (status.state, status.message) == (JobState.FAILED, "it deleted its own job directory")
    assert JobState.UNKNOWN in seen
    assert JobState.LOST not in seen


def test_damaged_records_keep_no_other_job_from_its_status(cluster: Cluster) -> None:
    good, bad = submit(cluster, "true").handle, submit(cluster, "true").handle
    wait(cluster, good.job_id)
    wait(cluster, bad.job_id)
    Path(bad.job_dir, ".job/attempts/1/exit.json").write_text("{half")
    statuses = cluster.statuses([bad.job_id, good.job_id])
    assert [status.state for status in statuses] == [JobState.UNKNOWN, JobState.SUCCEEDED]
    assert "cannot be read" in statuses[0].message


@pytest.mark.parametrize("tail_bytes", [0, 50])
def test_the_tail_comes_only_when_asked_for(cluster: Cluster, tail_bytes: int) -> None:
    handle = submit(cluster, "for i in $(seq 100); do echo line $i; done").handle
    wait(cluster, handle.job_id)
    tail = cluster.statuses([handle.job_id], tail_bytes=tail_bytes)[0].log_tail
    assert tail.splitlines()[-1:] == (["line 100"] if tail_bytes else [])
    assert len(tail) <= tail_bytes
