"""GpuClusterHook over a pool: it follows a job to its cluster, and asks all members, on a real SSH server."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, LaunchError
from airflow_provider_gpu_cluster.hooks import pool_calls
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.gpu_cluster_pool import GpuClusterPoolHook
from airflow_provider_gpu_cluster.jobs.status import JobState


def test_its_methods_follow_a_job_to_its_cluster(lab: list[str], tmp_path: Path, eventually: Any) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('hello')\n")
    with GpuClusterHook(lab) as hook:
        handles = [
            hook.member(conn_id).submit(
                job_id=f"on-{conn_id}", command=f"echo {conn_id} > $OUTPUT_DIR/where; exit {code}"
            )
            for conn_id, code in (("gpu02", 0), ("gpu01", 1))
        ]
        first, second = handles
        assert [one["gpu_cluster_conn_id"] for one in handles] == ["gpu02", "gpu01"]
        asked = [second, first, "on-gpu01", second]
        eventually(lambda: all(status.final for status in hook.statuses(asked)))
        assert [status.job_id for status in hook.statuses(asked)] == ["on-gpu01", "on-gpu02", "on-gpu01", "on-gpu01"]
        assert [str(hook.status(job).state) for job in ("on-gpu02", second)] == ["SUCCEEDED", "FAILED"]
        for job in (first, "on-gpu02"):
            folder = tmp_path / f"home-{type(job).__name__}"
            assert "where" in [file["path"] for file in hook.collect(job, folder)["files"]]
            assert (folder / "where").read_text() == "gpu02\n"
            assert hook.logs(job) == ""
            assert hook.cancel(job).state is JobState.SUCCEEDED
            with pytest.raises(LaunchError, match="it has ended"):
                hook.interrupt(job, as_="preempted")
        acts = hook.audit(first)
        assert (acts[0]["act"], acts[0]["gpu_cluster_conn_id"]) == ("submit", "gpu02")
        hook.resubmit(second)
        eventually(lambda: hook.status("on-gpu01").attempt == 2)
        staged = hook.member("gpu02").stage(job_id="staged", code="code", base_dir=tmp_path)
        assert hook.status("staged").message == "it is staged, and was not launched"
        assert hook.submit(job=staged, entry_script="train.py")["gpu_cluster_conn_id"] == "gpu02"
        eventually(lambda: hook.status("staged").state is JobState.SUCCEEDED)
        assert hook.logs("staged") == "hello\n"
        with pytest.raises(LaunchError, match=r"no cluster of the pool knows job none \(asked were gpu01, gpu02\)"):
            hook.cancel("none")
        with pytest.raises(LaunchError):
            hook.audit("none")
        usage = hook.usage(by="day")
        assert [(row["gpu_cluster_conn_id"], row["jobs"]) for row in usage] == [("gpu01", 1), ("gpu02", 2)]  # type: ignore[typeddict-item]


def test_a_member_that_is_down_is_told(
    lab: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # connects, and says nothing
    value = json.loads(os.environ["AIRFLOW_CONN_GPU02"])
    monkeypatch.setenv("AIRFLOW_CONN_GPU03", json.dumps({**value, "port": silent.getsockname()[1]}))
    monkeypatch.setattr(pool_calls, "SILENT_S", 2.0)
    ids = [*lab, "gpu03"]
    monkeypatch.setenv("AIRFLOW_CONN_ALL", json.dumps({"conn_type": "gpu_cluster_pool", "extra": {"members": ids}}))
    with GpuClusterHook(ids) as hook:
        hook.member("gpu01").submit(job_id="here", command="true")
        began = time.monotonic()
        capacity = hook.capacity()
        assert len(capacity["gpus"]) == 6
        assert {gpu["gpu_cluster_conn_id"] for gpu in capacity["gpus"]} == {"gpu01", "gpu02"}
        assert len(capacity["members"]["gpu02"]["gpus"]) == 2
        assert "has not answered within 2 s" in capacity["members"]["gpu03"]["error"]
        assert hook.status("here").job_id == "here"
        with pytest.raises(GpuClusterConnectionError, match=r"and these have not: gpu03: it has not answered"):
            hook.status("nowhere")
        assert time.monotonic() - began < 25
    works, message = GpuClusterPoolHook("all").test_connection()
    assert not works
    first, *told = message.splitlines()
    assert first == "2 of 3 clusters of the pool work."
    assert [line.split(": ")[0] for line in told] == ["gpu01", "gpu02", "gpu03 DOES NOT WORK"]
    assert "4 of 4" in told[0]
    silent.close()


def test_garbage_of_all_members(lab: list[str]) -> None:
    with GpuClusterHook("lab") as hook:
        report = hook.collect_garbage("14d", dry_run=True)
        assert (report["jobs"], report["failures"], list(report["members"])) == ([], 0, lab)
        with pytest.raises(GpuClusterError, match="set 'retention' in the"):
            hook.collect_garbage()
        assert GpuClusterPoolHook("lab").test_connection()[0]
