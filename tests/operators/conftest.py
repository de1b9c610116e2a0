"""What tests of tasks share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from tests.harness.deferral import TaskLogs, own_watchers, task_logs
from tests.operators.modes import Scene
from tests.servers.proxy import CutProxy


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskLogs]:
    """Return what is logged during the test."""
    with task_logs(tmp_path / "log", monkeypatch) as logs:
        yield logs


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    cut_proxy: CutProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """Return the scene of a task in the mode that the test names."""
    with own_watchers(monkeypatch), task_logs(tmp_path / "log", monkeypatch) as logs:
        yield Scene(
            request.param.name,
            cluster=cluster,
            connection=gpu_cluster_conn,
            proxy=cut_proxy,
            folder=tmp_path,
            monkeypatch=monkeypatch,
            logs=logs,
        )
