"""The DAGs in dags/, each run once by Airflow on a real cluster; and the docs, which quote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.dag_runs import run_dag, states

DAGS = sorted((REPOSITORY / "dags").glob("*.py"))


@pytest.mark.usefixtures("gpu_cluster_conn")
@pytest.mark.parametrize("file", DAGS, ids=lambda file: file.stem)
def test_it_trains_and_brings_a_model_home(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dags"
    shutil.copytree(REPOSITORY / "dags", folder, ignore=shutil.ignore_patterns("*.py[c]", "gpu_*.py", "__pycache__"))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    run = run_dag(folder, file.read_text(), monkeypatch)
    assert str(run.state) == "success"
    assert set(states(run).values()) == {"success"}
    (metrics,) = (tmp_path / "models").rglob("metrics.json")
    assert json.loads(metrics.read_text())["accuracy"] > 0.9
    assert (metrics.parent / "model.pkl").stat().st_size > 10_000


@pytest.mark.parametrize("file", DAGS, ids=lambda file: file.stem)
def test_the_docs_quote_it_word_for_word(file: Path) -> None:
    quoted = file.read_text().split(f"# [START {file.stem}]\n")[1].split(f"# [END {file.stem}]")[0]
    assert quoted in "".join(page.read_text() for page in (REPOSITORY / "docs").glob("*.md"))
