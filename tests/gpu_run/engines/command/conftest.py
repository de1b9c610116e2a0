"""Fixtures for tests of the site's own launcher."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.gpu_run.engines.command import engine, handover
from tests.harness.leftovers import kill_everything_under
from tests.servers.command_site import CommandRoot, Site

OPTIONS = (
    " --gpus {gpus} --gpu-type={gpu_type} --memory {memory} --time-limit {time_limit} --priority {priority} {script}"
)


@pytest.fixture
def site(cluster_folder: Path) -> Site:
    """Return a site that belongs to this test alone."""
    return Site(cluster_folder)


@pytest.fixture
def root_with(cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], CommandRoot]]:
    """Return a function that makes a root for a launch command. What it looks at, it looks at often."""
    monkeypatch.setattr(engine, "INTERVAL_S", 0.3)
    monkeypatch.setattr(engine, "GONE_S", 1.0)
    monkeypatch.setattr(handover, "FOREGROUND_S", 0.5)
    yield lambda launch_command: CommandRoot(cluster_folder, launch_command)
    kill_everything_under(cluster_folder)


@pytest.fixture
def command_conn(
    gpu_cluster_conn: dict[str, Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, Any]]:
    """Return a function that gives ``gpu_cluster_default`` a launch command."""

    def connect(launch_command: str) -> dict[str, Any]:
        extra = {name: gpu_cluster_conn["extra"][name] for name in ("private_key", "host_key", "root_dir")}
        connection = {**gpu_cluster_conn, "extra": {**extra, "engine": "command", "launch_command": launch_command}}
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
        return connection

    return connect


@pytest.fixture
def settings(cluster_settings: ClusterSettings, site: Site) -> ClusterSettings:
    """Return the settings of a cluster whose launcher is a person's ``gpu-run``, with another root and 4 GPUs."""
    return replace(
        cluster_settings,
        engine="command",
        launch_command=site.gpu_run() + OPTIONS,
        lease_dir=None,
        virtual_gpus=None,
    )


@pytest.fixture
def cluster(settings: ClusterSettings, ssh_connect: Callable[..., paramiko.SSHClient]) -> Iterator[Cluster]:
    """Return that cluster, behind the real OpenSSH server."""
    with Cluster(settings, ssh_connect) as cluster:
        yield cluster
