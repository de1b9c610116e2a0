"""Whole DAGs, run by Airflow on a real Slurm: the connection says so, and the DAG does not have a word changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from tests.conftest import REPOSITORY
from tests.harness.dag_runs import run_dag, states
from tests.servers.login_node import LoginNode
from tests.servers.sshd import login

pytestmark = pytest.mark.xdist_group("slurm-faults")


@pytest.fixture
def folder(login_node: LoginNode, settings: ClusterSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for DAGs, with the inputs of the examples, whose ``gpu_cluster_default`` is Slurm."""
    extra = {
        "private_key": login_node.sshd.client_key,
        "host_key": login_node.sshd.host_key,
        "root_dir": settings.root_dir,
        "engine": "slurm",
        "slurm_interval": settings.slurm_interval_s,
        "sbatch_options": "--oversubscribe",
    }
    where = {"host": login_node.sshd.host, "port": login_node.sshd.port, "login": login()}
    connection = {"conn_type": "gpu_cluster", **where, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    folder = tmp_path / "dags"
    shutil.copytree(REPOSITORY / "dags", folder, ignore=shutil.ignore_patterns("*.py[c]", "gpu_*.py", "__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("name", "deferrable"),
    [
        # It builds a Python environment, as it does on a host without Slurm.
        pytest.param("gpu_train_digits", False, marks=pytest.mark.long),
        pytest.param("gpu_mean_two_nodes", False, marks=pytest.mark.long),
        ("gpu_mean_two_nodes", True),
    ],
)
def test_an_example(
    name: str,
    deferrable: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # A model that is smaller, and trained for shorter.
    source = (REPOSITORY / "dags" / f"{name}.py").read_text().replace('"40", "--hidden", "512"', '"20"')
    if deferrable:
        source = source.replace("wait_for_completion=True,", "wait_for_completion=True, deferrable=True,")
    run = run_dag(folder, source, monkeypatch)
    said = capfd.readouterr().out
    assert str(run.state) == "success", said
    assert set(states(run).values()) == {"success"}
    (found,) = (tmp_path / "models").rglob("metrics.json")
    metrics = json.loads(found.read_text())
    if name == "gpu_mean_two_nodes":
        assert (metrics["nodes"], metrics["images"], len(metrics["mean"])) == (2, 1797, 64)
        assert "node 1 of 2: " in said
    else:
        assert metrics["accuracy"] > 0.9
