"""What tests of triggers share: the log of tasks, XComs, and no watcher of another test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.triggers import first_request
from tests.harness.deferral import TaskLogs, XComs, own_watchers, task_logs


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskLogs]:
    """Return what is logged during the test."""
    with task_logs(tmp_path / "log", monkeypatch) as logs:
        yield logs


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> XComs:
    """Return the XComs that triggers see."""
    return XComs(monkeypatch)


@pytest.fixture(autouse=True)
def _no_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let triggers ask Airflow only for what a test is about."""
    monkeypatch.setattr(first_request, "_is_answered", True)


@pytest.fixture(autouse=True)
def _own_watchers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_watchers(monkeypatch):
        yield
