"""Fixtures for tests of the site's own launcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines import command, command_launching
from tests.command.site import CommandRoot, Site
from tests.leftovers import kill_everything_under


@pytest.fixture
def site(cluster_folder: Path) -> Site:
    """Return a site that belongs to this test alone."""
    return Site(cluster_folder)


@pytest.fixture
def root_with(cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], CommandRoot]]:
    """Return a function that makes a root for a launch command. What it looks at, it looks at often."""
    monkeypatch.setattr(command, "INTERVAL_S", 0.1)
    monkeypatch.setattr(command, "GONE_S", 1.0)
    monkeypatch.setattr(command_launching, "FOREGROUND_S", 0.5)
    yield lambda launch_command: CommandRoot(cluster_folder, launch_command)
    kill_everything_under(cluster_folder)
