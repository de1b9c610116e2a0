"""Fixtures for connections to real SSH servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.sshd import RealSshd, login

Connect = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home directory of the user that runs Airflow, with a folder ``.ssh``."""
    path = tmp_path / "home"
    (path / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return path


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a function that defines an Airflow connection to a server; other fields go to its extra."""

    def define(conn_id: str, server: RealSshd, *, conn_type: str = "gpu_cluster", **extra: Any) -> None:
        columns = {"host": server.host, "port": server.port, "login": login()}
        columns.update({name: extra.pop(name) for name in columns if name in extra})
        value = json.dumps({"conn_type": conn_type, **columns, "extra": extra})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)

    return define
