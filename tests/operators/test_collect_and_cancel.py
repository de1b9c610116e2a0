"""CollectGpuJobOperator and CancelGpuJobOperator, on a real cluster."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import CollectError, InvalidJobError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.operators.gpu_job import CancelGpuJobOperator, CollectGpuJobOperator
from tests.harness import jobs
from tests.harness.task_context import TaskInstance, execute, task_context

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn")


def finished(cluster: Cluster, command: str) -> dict[str, Any]:
    handle = jobs.submit(cluster, command).handle
    jobs.wait(cluster, handle.job_id)
    return handle.to_json()


def collect(job: Any, destination: Path, **arguments: Any) -> dict[str, Any]:
    operator = CollectGpuJobOperator(task_id="collect", job=job, destination=str(destination), **arguments)
    result: dict[str, Any] = execute(operator, task_context())
    return result


def cancel(job: Any) -> None:
    execute(CancelGpuJobOperator(task_id="cancel", job=job), task_context())


def test_outputs_come_home_with_their_checksums(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(
        cluster,
        'cd "$OUTPUT_DIR"; mkdir -p checkpoints; printf weights >model.pth; printf x >checkpoints/1.pth; '
        """printf '{"loss": NaN, "step": 3}' >metrics.json""",
    )
    home = tmp_path / "home"
    result = collect(job, home, include=["*.pth", "metrics.json"])
    paths = [file["path"] for file in result["files"]]
    assert paths == ["checkpoints/1.pth", "metrics.json", "model.pth"]
    assert result["files"][2]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert result["metrics"] == {"loss": "NaN", "step": 3}
    assert (result["job_id"], result["destination"]) == (job["job_id"], str(home))
    assert (home / "model.pth").read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["collect", "cancel"])
def test_a_task_that_sees_to_a_job_shows_it(kind: str, cluster: Cluster, tmp_path: Path) -> None:
    job, ti = finished(cluster, "true"), TaskInstance(kind, map_index=3)
    operator = (
        CollectGpuJobOperator(task_id=kind, job=job, destination=str(tmp_path / "home"))
        if kind == "collect"
        else CancelGpuJobOperator(task_id=kind, job=job)
    )
    execute(operator, task_context(ti))
    assert ti.xcoms == {
        "gpu_job": job,
        "gpu_job_link": f"/dags/lab/runs/manual__1/tasks/{kind}/mapped/3/plugin/gpu-job",
    }


def array(cluster: Cluster, command: str, size: int = 3) -> dict[str, Any]:
    return jobs.submit_array(cluster, command, [{}] * size).handle.to_json()


@pytest.mark.parametrize("transfer", ["stream", "sftp"])
def test_outputs_of_an_array_come_into_a_folder_for_each_element(
    transfer: str,
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = {**gpu_cluster_conn, "extra": {**gpu_cluster_conn["extra"], "transfer": transfer}}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
    job = array(
        cluster,
        'cd "$OUTPUT_DIR"; mkdir sub; head -c 2000000 /dev/zero | tr "\\0" "$ARRAY_INDEX" >sub/big; '
        'echo x >sub/metrics.json; [ $ARRAY_INDEX = 1 ] || echo "{\\"loss\\": $ARRAY_INDEX}" >metrics.json; '
        "[ $ARRAY_INDEX != 2 ]",
    )
    jobs.wait(cluster, job["job_id"])
    result = collect(job, tmp_path / "home", include=["/metrics.json", "sub/big"])
    paths = [file["path"] for file in result["files"]]
    assert paths == ["0/metrics.json", "0/sub/big", "1/sub/big", "2/metrics.json", "2/sub/big"]
    assert result["metrics"] == [{"loss": 0}, None, {"loss": 2}]
    assert (tmp_path / "home/2/sub/big").read_bytes() == b"2" * 2_000_000


def test_what_is_left_of_an_array_comes_home(cluster: Cluster, tmp_path: Path) -> None:
    job = array(cluster, 'touch "$OUTPUT_DIR/model"')
    jobs.wait(cluster, job["job_id"])
    shutil.rmtree(Path(job["job_dir"]).parent / f"{job['job_id']}_1")
    result = collect(job, tmp_path / "home", include="model")
    assert [file["path"] for file in result["files"]] == ["0/model", "2/model"]


def test_an_array_is_cancelled_by_its_handle_and_by_that_of_its_staged_job(cluster: Cluster) -> None:
    job = array(cluster, "exec sleep 60")
    cancel(job)
    assert cluster.statuses(["a"])[0].message.startswith("of 3 elements 3 were cancelled")
    cluster.stage("b", (), record=jobs.record(task_id="stage"))
    staged = jobs.submit_array(cluster, "exec sleep 60", [{}] * 3, job_id="b", sources=None).handle.to_json()
    del staged["array_size"]
    cancel({**staged, "submitted_at": None, "gpus": 0})
    assert cluster.statuses(["b"])[0].message.startswith("of 3 elements 3 were cancelled")


def test_patterns_may_be_one_text_and_may_exclude(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(cluster, 'cd "$OUTPUT_DIR"; touch a.pth b.pth c.txt')
    result = collect(job, tmp_path / "home", include="*.pth", exclude="b.*")
    assert [file["path"] for file in result["files"]] == ["a.pth"]
    assert result["metrics"] is None


def test_handle_may_have_gone_through_a_template(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(cluster, 'touch "$OUTPUT_DIR/a"')
    assert collect(str(job), tmp_path / "home", include="a")["files"]


def test_link_out_of_the_outputs_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(cluster, 'ln -s /etc/passwd "$OUTPUT_DIR/model.pth"')
    with pytest.raises(CollectError, match=r"model\.pth"):
        collect(job, tmp_path / "home")
    assert not (tmp_path / "home" / "model.pth").exists()


def test_failed_job_leaves_what_it_has(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(cluster, 'printf 1 >"$OUTPUT_DIR/last.pth"; exit 4')
    assert [file["path"] for file in collect(job, tmp_path / "home", include="*.pth")["files"]] == ["last.pth"]


def test_metrics_that_are_no_json_stay_a_file(cluster: Cluster, tmp_path: Path) -> None:
    job = finished(cluster, 'echo nonsense >"$OUTPUT_DIR/metrics.json"')
    assert collect(job, tmp_path / "home")["metrics"] is None
    assert (tmp_path / "home" / "metrics.json").exists()


def test_running_job_is_cancelled(cluster: Cluster) -> None:
    handle = jobs.submit(cluster, "sleep 600").handle
    jobs.wait(cluster, handle.job_id, JobState.RUNNING)
    cancel(handle.to_json())
    status = cluster.statuses([handle.job_id])[0]
    assert status.state is JobState.CANCELLED


def test_ended_job_is_left_as_it_is_in_silence(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    job = finished(cluster, "true")
    monkeypatch.setattr(CancelGpuJobOperator, "log", None)  # a word would be an error
    cancel(job)
    assert cluster.statuses([job["job_id"]])[0].state is JobState.SUCCEEDED


@pytest.mark.parametrize("job", [None, "None", ""])
def test_where_nothing_was_launched_nobody_is_asked(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(GpuClusterHook, "connect", lambda hook: asked.append(hook))
    cancel(job)
    assert asked == []


@pytest.mark.parametrize("job", [{"job_id": "x"}, "job-1", 7, ["x"]])
def test_what_is_no_handle_is_an_error(job: Any) -> None:
    with pytest.raises(InvalidJobError, match="not a job handle"):
        cancel(job)
