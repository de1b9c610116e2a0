"""GpuClusterHook over a pool: it follows a job to its cluster, and asks all members, on a real SSH server."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    LaunchError,
    NoClusterFitsError,
)
from airflow_provider_gpu_cluster.hooks import pool_calls
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.gpu_cluster_pool import GpuClusterPoolHook
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness.patience import PATIENCE_S

HANDLE: dict[str, Any] = {"job_id": "none", "job_dir": "/x", "engine": "host", "submitted_at": None, "gpus": 0}


def test_its_methods_follow_a_job_to_its_cluster(lab: list[str], tmp_path: Path, eventually: Any) -> None:
    with GpuClusterHook(lab) as hook:
        second = hook.member("gpu01").submit(job_id="on-gpu01", command="exit 1")
        staged = hook.member("gpu02").stage(job_id="on-gpu02")
        assert hook.status("on-gpu02").message == "it is staged, and was not launched"
        first = hook.submit(job=staged, command="echo hello | tee $OUTPUT_DIR/said")
        assert [one["gpu_cluster_conn_id"] for one in (first, second)] == ["gpu02", "gpu01"]
        asked: list[Any] = [second, first, "on-gpu01", second]
        eventually(lambda: all(status.final for status in hook.statuses(asked)))
        assert [status.job_id for status in hook.statuses(asked)] == ["on-gpu01", "on-gpu02", "on-gpu01", "on-gpu01"]
        assert [str(hook.status(job).state) for job in ("on-gpu02", second)] == ["SUCCEEDED", "FAILED"]
        assert "said" in [file["path"] for file in hook.collect("on-gpu02", tmp_path / "home")["files"]]
        assert [hook.logs(job) for job in (first, "on-gpu02")] == ["hello\n"] * 2
        assert hook.cancel(first).state is JobState.SUCCEEDED
        with pytest.raises(LaunchError, match="it has ended"):
            hook.interrupt("on-gpu02", as_="preempted")
        acts = hook.audit(first)
        assert [(act["act"], act["gpu_cluster_conn_id"]) for act in acts][:2] == [
            ("stage", "gpu02"),
            ("submit", "gpu02"),
        ]
        rows = [(row["gpu_cluster_conn_id"], row["jobs"]) for row in hook.usage(by="day")]  # type: ignore[typeddict-item]
        assert rows == [("gpu01", 1), ("gpu02", 1)]
        assert hook.resubmit(second)["gpu_cluster_conn_id"] == "gpu01"
        with pytest.raises(LaunchError, match=r"no cluster of the pool knows job none \(asked were gpu01, gpu02\)"):
            hook.cancel("none")
        with pytest.raises(LaunchError):
            hook.audit("none")


def test_inputs_go_where_their_job_fits(lab: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('hello')\n")
    with GpuClusterHook(lab[::-1], policy="in_order") as hook:
        staged = hook.stage(job_id="staged", code="code", base_dir=tmp_path, needs={"gpus": 3})
        assert staged["gpu_cluster_conn_id"] == "gpu01"  # which is the last, and the only one with so many
        assert hook.stage(job_id="small", code="code", base_dir=tmp_path)["gpu_cluster_conn_id"] == "gpu02"
        with pytest.raises(NoClusterFitsError, match="no cluster of the pool can ever run this job"):
            hook.stage(job_id="large", needs={"gpus": 5})
        with pytest.raises(
            InvalidJobError, match=r"needs has the key 'gpu_typ' \(did you mean 'gpu_type'\?\); valid are"
        ):
            hook.stage(job_id="wrong", needs={"gpu_typ": "A100"})
    told = capfd.readouterr().out
    assert "GPU job's inputs go to gpu01" in told
    assert "expected start" in told


def test_a_member_that_is_down_is_told(
    lab: list[str], gpu_cluster_conn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        down = json.dumps({**gpu_cluster_conn, "port": silent.getsockname()[1]})
        pool = json.dumps({"conn_type": "gpu_cluster_pool", "extra": {"members": [*lab, "gpu03"]}})
        monkeypatch.setenv("AIRFLOW_CONN_GPU03", down)
        monkeypatch.setenv("AIRFLOW_CONN_ALL", pool)
        monkeypatch.setattr(pool_calls, "SILENT_S", 2.0)
        with GpuClusterHook("all") as hook:
            hook.statuses([{**HANDLE, "gpu_cluster_conn_id": conn_id} for conn_id in lab])  # those are open now
            began = time.monotonic()
            capacity = hook.capacity()
            assert time.monotonic() - began < 2 + PATIENCE_S / 2
            assert [gpu["gpu_cluster_conn_id"] for gpu in capacity["gpus"]] == ["gpu01"] * 4 + ["gpu02"] * 2
            assert (capacity["free_gpus"], len(capacity["members"]["gpu02"]["gpus"])) == (6, 2)
            assert "it has not answered within 2 s" in capacity["members"]["gpu03"]["error"]
    works, message = GpuClusterPoolHook("all").test_connection()
    assert not works
    first, *told = message.splitlines()
    assert first == "2 of 3 clusters of the pool work."
    assert [line.split(": ")[0] for line in told] == ["gpu01", "gpu02", "gpu03 DOES NOT WORK"]
    assert "4 of 4" in told[0]
    assert "nothing accepts connections on port" in told[2]
    monkeypatch.setattr(pool_calls, "SILENT_S", 0.1)
    with pytest.raises(GpuClusterConnectionError, match=r"and these have not: .*gpu03: it has not answered"):
        GpuClusterHook("all").status("nowhere")


def test_garbage_of_all_members(lab: list[str]) -> None:
    with GpuClusterHook("lab") as hook:
        report = hook.collect_garbage("14d", dry_run=True)
        assert (report["jobs"], report["failures"], list(report["members"])) == ([], 0, lab)
        with pytest.raises(GpuClusterError, match="set 'retention' in the"):
            hook.collect_garbage()
        assert GpuClusterPoolHook("lab").test_connection()[0]
