"""The DAGs in dags/, each run once by Airflow on a real cluster; and the docs, which quote them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from tests.conftest import REPOSITORY
from tests.harness.dag_runs import run_dag, states, xcom
from tests.harness.jobs import record, submit
from tests.harness.leftovers import kill_everything_under

DAGS = sorted((REPOSITORY / "dags").glob("*.py"))
MAINTENANCE = REPOSITORY / "dags" / "gpu_cluster_maintenance.py"
ORPHANS = REPOSITORY / "dags" / "gpu_cluster_orphans.py"
REPORT = REPOSITORY / "dags" / "gpu_hours_report.py"
# Needs a scheduler; it is run by the tests that have one.
TWO_NODES = REPOSITORY / "dags" / "gpu_mean_two_nodes.py"
CLOSED_PORT = 9  # that of "discard", at which nothing listens
ELSEWHERE = (MAINTENANCE, ORPHANS, REPORT, TWO_NODES)
# Less than an example has: models that are trained for shorter, and fewer of them.
SMALLER = {
    r'"--epochs", "40"(, "--hidden", "512")?': '"--epochs", "12"',
    re.escape("rates, widths = (0.001, 0.004), (32, 64)"): "rates, widths = (0.004,), (32, 64)",
    re.escape('for rate in ("0.001", "0.002", "0.004")'): 'for rate in ("0.002", "0.004")',
}


def _training(file: Path) -> Any:
    # A whole Airflow runs the first as it is: tests/whole_airflow/test_jobs.py.
    marks = [pytest.mark.long] if file.stem == "gpu_train_digits" else []
    return pytest.param(file, id=file.stem, marks=marks)


@pytest.fixture(scope="module")
def shared_root() -> Iterator[str]:
    """Return a root for all training jobs, which so build their Python environment once."""
    with tempfile.TemporaryDirectory(prefix="gpu-cluster-training-") as folder:
        yield f"{folder}/ml-jobs"
        kill_everything_under(Path(folder))


@pytest.mark.xdist_group("training")
@pytest.mark.parametrize("file", [_training(file) for file in DAGS if file not in ELSEWHERE])
def test_it_trains_and_brings_a_model_home(
    file: Path,
    gpu_cluster_conn: dict[str, Any],
    shared_root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = {**gpu_cluster_conn, "extra": {**gpu_cluster_conn["extra"], "root_dir": shared_root}}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
    # The pool has a member that is down.
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", json.dumps({**connection, "port": CLOSED_PORT}))
    pool = {"conn_type": "gpu_cluster_pool", "extra": {"members": ["down", "gpu_cluster_default"]}}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_POOL", json.dumps(pool))
    folder = tmp_path / "dags"
    shutil.copytree(REPOSITORY / "dags", folder, ignore=shutil.ignore_patterns("*.py[c]", "gpu_*.py", "__pycache__"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    source = file.read_text()
    for more, less in SMALLER.items():
        source = re.sub(more, less, source)
    run = run_dag(folder, source, monkeypatch)
    assert str(run.state) == "success"
    assert set(states(run).values()) == {"success"}
    trained = list((tmp_path / "models").rglob("metrics.json"))
    assert len(trained) == {"gpu_sweep": 2, "gpu_train_pool": 2}.get(file.stem, 1)
    for metrics in trained:
        assert json.loads(metrics.read_text())["accuracy"] > 0.9
        assert (metrics.parent / "model.pkl").stat().st_size > 10_000


@pytest.mark.parametrize("dry_run", [True, False])
def test_it_clears_old_jobs_away(
    dry_run: bool,
    gpu_cluster_conn: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with GpuClusterHook() as hook:
        for job_id in ("old", "new"):
            hook.submit(job_id=job_id, command="true")
            eventually(lambda job_id=job_id: hook.status(job_id).final)
    root = Path(gpu_cluster_conn["extra"]["root_dir"])
    record = root / "old/.job/attempts/1/exit.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "ended_at": "2020-01-01T00:00:00+00:00"}))
    # Its supervisor is there for a moment after the end it has recorded.
    pid = json.loads(record.read_text())["pid"]
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    source = MAINTENANCE.read_text()
    # Not beside the cluster: Airflow would look for DAGs there as well.
    folder = tmp_path / "dags"
    folder.mkdir()
    run = run_dag(folder, source.replace("        False,\n", "        True,\n") if dry_run else source, monkeypatch)
    assert str(run.state) == "success"
    assert (root / "old").exists() is dry_run
    assert (root / "new").exists()
    said = capfd.readouterr().out
    assert "Old job: old" in said
    assert "Would remove 1 jobs: " in said if dry_run else "Removed 1 jobs: " in said


def test_it_finds_orphans_and_ends_them(
    gpu_cluster_conn: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com")
    ours = record(run_id="deleted long ago", airflow_url="https://airflow.example.com")
    with GpuClusterHook() as hook:
        submit(hook.cluster, "sleep 1000", job_id="left", who=ours)
        submit(hook.cluster, "sleep 1000", job_id="of-another-airflow", who={**ours, "airflow_url": "https://b"})
        hook.submit(job_id="of-nobody", command="sleep 1000")
        eventually(lambda: hook.status("left").state == "RUNNING")
    folder = tmp_path / "dags"
    folder.mkdir()
    # Nobody has asked about it since a moment ago.
    source = ORPHANS.read_text().replace('        "1h",\n', '        "0.001",\n')
    run = run_dag(folder, source.replace("        False,\n", "        True,\n"), monkeypatch)
    assert states(run) == {"clusters": "success", "look_for_orphans[0]": "success"}
    assert xcom(run, "look_for_orphans", map_index=0) == ["left"]
    said = capfd.readouterr().out
    assert "Orphaned job: left: RUNNING since 20" in said
    assert "1 GPU, of dag.task, run deleted long ago: Airflow knows no such run" in said
    with GpuClusterHook() as hook:
        eventually(lambda: hook.status("left").state == "CANCELLED")
        assert "gpu_cluster_orphans.look_for_orphans" in hook.status("left").message
        assert {hook.status(other).state for other in ("of-another-airflow", "of-nobody")} == {"RUNNING"}


@pytest.mark.long
def test_it_reports_who_has_used_gpus(
    gpu_cluster_conn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    end: Any = {"kind": "end", "job_id": "j", "attempt": 1, "state": "SUCCEEDED", "engine": "host", "dag_id": "night"}
    end.update(at=datetime.now(timezone.utc).isoformat(), user="ann", gpu_seconds=7200, used_gpu_seconds=3600)
    assert Ledger(gpu_cluster_conn["extra"]["root_dir"] + "/.gpu-run").append(end)
    folder = tmp_path / "dags"
    folder.mkdir()
    run = run_dag(folder, REPORT.read_text(), monkeypatch)
    assert states(run) == {"clusters": "success", "report[0]": "success"}
    found = xcom(run, "report", map_index=0)
    assert {by: [row["key"] for row in rows] for by, rows in found.items()} == {
        "user": ["ann"],
        "dag": ["night"],
        "reason": [""],
    }
    assert "  ann: 2.0 GPU-hours in 1 jobs (50% used)" in capfd.readouterr().out


@pytest.mark.parametrize("file", DAGS, ids=lambda file: file.stem)
def test_the_docs_quote_it_word_for_word(file: Path) -> None:
    quoted = file.read_text().split(f"# [START {file.stem}]\n")[1].split(f"# [END {file.stem}]")[0]
    assert quoted in "".join(page.read_text() for page in (REPOSITORY / "docs").glob("*.md"))
