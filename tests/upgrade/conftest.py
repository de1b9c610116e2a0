"""Fixtures for tests with two versions: both Airflow sides, and clusters that both know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_run.engines.command.conftest import OPTIONS
from tests.harness.deferral import own_watchers
from tests.servers.command_site import Site
from tests.upgrade.sides import OLD_VERSIONS, Side, new_side, old_side

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=OLD_VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Iterator[Side]:
    """Return the Airflow side of an old version."""
    with old_side(request.param, tmp_path_factory.mktemp("old")) as side:
        yield side


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    """Return the Airflow side of this version."""
    with own_watchers(monkeypatch):
        yield new_side()


@pytest.fixture(params=["old before new", "new before old"])
def sides(request: pytest.FixtureRequest, old: Side, new: Side) -> tuple[Side, Side]:
    """Return the side that launches jobs, and the one that finds them."""
    return (old, new) if request.param == "old before new" else (new, old)


@pytest.fixture
def connect(
    old: Side, new: Side, gpu_cluster_conn: dict[str, Any], cluster_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Return a function that gives both sides a connection to this test's cluster, with an engine, and names it."""

    def make(engine: str) -> str:
        # The other process lives on, with all that it knows of other tests' clusters.
        conn_id = f"upgrade_{next(_numbers)}"
        connection = gpu_cluster_conn
        if engine == "command":
            launch_command = Site(cluster_folder).gpu_run() + OPTIONS
            extra = {name: connection["extra"][name] for name in ("private_key", "host_key", "root_dir")}
            extra |= {"engine": engine, "launch_command": launch_command}
            connection = {**connection, "extra": extra}
        name, value = f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection)
        monkeypatch.setenv(name, value)
        old.connect(name, value)
        return conn_id

    yield make
    for side in (old, new):
        side.disconnect()
