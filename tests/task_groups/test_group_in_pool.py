"""A GpuJobTaskGroup in a pool: its job goes elsewhere when its cluster is lost, and all tasks follow it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs import parameter_checks
from airflow_provider_gpu_cluster.pools import holding
from airflow_provider_gpu_cluster.sandbox import Sandbox
from airflow_provider_gpu_cluster.watch import watch
from tests.harness.dag_runs import run_dag, states, xcom
from tests.harness.patience import PATIENCE_S

DAG_FILE = """
from airflow.sdk import DAG
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

with DAG("group_in_pool", schedule=None) as dag:
    GpuJobTaskGroup(
        "train",
        code="code",
        entry_script="train.py",
        pass_output_dirs=False,
        gpu_cluster_conn_id=["gpu01", "gpu02"],
        policy="in_order",
        failover_after=40,
        orphan_timeout=10,
        grace=0.5,
        poke_interval=0.5,
        destination="{destination}",
    )
"""
TRAIN = """
import json, os, time
begun = os.path.join({folder!r}, "begun")
with open(begun, "a") as file:
    print(os.environ["JOB_DIR"], file=file, flush=True)
if sum(1 for _ in open(begun)) == 1:
    time.sleep(600)
json.dump(dict(where=os.environ["JOB_DIR"]), open(os.environ["OUTPUT_DIR"] + "/metrics.json", "w"))
"""


@pytest.mark.long
def test_all_tasks_follow_a_job_that_fails_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_checks, "SHORTEST_FAILOVER_S", 0.0)
    monkeypatch.setattr(holding, "MARGIN_S", 0.3)
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.0)
    (tmp_path / "dags" / "code").mkdir(parents=True)
    (tmp_path / "dags" / "code" / "train.py").write_text(TRAIN.format(folder=str(tmp_path)))
    with Sandbox(gpus=[1, 1]) as sandbox:
        for name, value in sandbox.environ().items():
            monkeypatch.setenv(name, value)
        cutting = threading.Thread(target=cut_when_it_runs, args=(sandbox, tmp_path / "begun"))
        cutting.start()
        # It stays away to the end, and so must be needed by no task.
        run = run_dag(tmp_path / "dags", DAG_FILE.format(destination=tmp_path / "home"), monkeypatch)
        cutting.join()
        first, second = places(tmp_path / "begun")
        next(cluster for cluster in sandbox.clusters if cluster.conn_id == first).restore()
        with GpuClusterHook(first) as hook:
            assert hook.status(xcom(run, "train.stage")["job_id"]).final
    assert set(states(run).values()) == {"success"}
    at = {name: xcom(run, f"train.{name}")["gpu_cluster_conn_id"] for name in ("stage", "submit", "wait")}
    assert at == {"stage": first, "submit": second, "wait": second}
    assert second in xcom(run, "train.collect")["metrics"]["where"]
    assert first != second


def places(begun: Path) -> list[str]:
    """Return the clusters on which the job began, in that order."""
    return [Path(line).parts[-3] for line in begun.read_text().split()] if begun.exists() else []


def cut_when_it_runs(sandbox: Sandbox, begun: Path) -> None:
    deadline = time.monotonic() + 4 * PATIENCE_S
    while not places(begun) and time.monotonic() < deadline:
        time.sleep(0.1)
    next(cluster for cluster in sandbox.clusters if cluster.conn_id == places(begun)[0]).cut_off()
