"""A task whose job waits in a pool, and goes on where GPUs become free."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.pools import keeping, moving
from airflow_provider_gpu_cluster.sandbox import Sandbox
from tests.harness import jobs
from tests.harness.dag_runs import run_dag, states, xcom
from tests.harness.patience import PATIENCE_S

DAG = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.operators.gpu_job import SubmitGpuJobOperator

with DAG("moving", schedule=None):
    SubmitGpuJobOperator(
        task_id="train",
        gpu_cluster_conn_id=["gpu01", "gpu02"],
        policy="soonest",
        command="echo it runs",
        code="code",
        wait_for_completion=True,
        deferrable={deferrable},
        poll_interval=1,
        move_gain=timedelta(minutes=10),
    )
"""


@pytest.mark.long
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_moves_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    monkeypatch.setattr(keeping, "MOVE_EVERY_S", 1.0)
    monkeypatch.setattr(moving, "APART_S", 0.5)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("pass")
    with Sandbox(clusters=2, gpus=[1, 1]) as sandbox:
        for name, value in sandbox.environ().items():
            monkeypatch.setenv(name, value)
        with GpuClusterHook("gpu01") as one, GpuClusterHook("gpu02") as two:
            hog(one.cluster, 7200.0)
            hog(two.cluster, 10800.0)
            freeing = threading.Thread(target=free_when_it_waits, args=(one.cluster, two.cluster))
            freeing.start()
            run = run_dag(tmp_path, DAG.format(deferrable=deferrable), monkeypatch)
            freeing.join()
    assert states(run) == {"train": "success"}
    assert xcom(run, "train")["gpu_cluster_conn_id"] == "gpu02"
    assert "GPU job was moved from gpu01 to gpu02" in capfd.readouterr().out


def hog(cluster: Cluster, time_limit_s: float) -> None:
    jobs.submit(cluster, "sleep 600", job_id="hog", gpus=1, time_limit_s=time_limit_s)


def free_when_it_waits(one: Cluster, two: Cluster) -> None:
    """Free the second cluster when the job waits on the first."""
    deadline = time.monotonic() + 4 * PATIENCE_S
    while len(one.jobs()["jobs"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    two.cancel(["hog"], requested_by="a test")
