"""
Fixtures for tests on a real Slurm: one with accounting, and one without, for all tests of a worker.

The tests are in two groups, so that at most two workers start one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from tests.conftest import connections_to
from tests.harness.leftovers import kill_everything_under
from tests.servers.login_node import LoginNode
from tests.servers.proxy import CutProxy
from tests.servers.slurm import HOW_TO_INSTALL, RealSlurm, missing_parts
from tests.servers.sshd import login

INTERVAL_S = 0.5


@pytest.fixture(scope="session")
def slurm() -> Iterator[RealSlurm]:
    """Return a running Slurm with accounting; a machine without one fails the test, and never skips it."""
    yield from _running(accounting=True)


@pytest.fixture(scope="session")
def slurm_without_accounting() -> Iterator[RealSlurm]:
    """Return a running Slurm without accounting, whose GPUs have a number for a name, and which takes small arrays."""
    yield from _running(accounting=False, gpu_type="3090", max_array_size=4)


def _running(**more: Any) -> Iterator[RealSlurm]:
    if missing := missing_parts():
        pytest.fail(HOW_TO_INSTALL.format(", ".join(missing)), pytrace=False)
    # A socket's path has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    server = RealSlurm(folder, **more)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _login_node(slurm: RealSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoginNode]:
    node = LoginNode(tmp_path_factory.mktemp("login"), slurm)
    node.sshd.start()
    try:
        yield node
    finally:
        node.sshd.stop()


@pytest.fixture
def login_node(_login_node: LoginNode) -> Iterator[LoginNode]:
    """Return the login node of ``slurm``, with Slurm's own commands."""
    yield _login_node
    _login_node.restore()


@pytest.fixture
def connect(login_node: LoginNode) -> Iterator[Callable[..., paramiko.SSHClient]]:
    """Return a function that opens an SSH connection to the login node, directly or through the port of a proxy."""
    with connections_to(login_node.sshd) as connect:
        yield connect


@pytest.fixture
def proxy(login_node: LoginNode) -> Iterator[CutProxy]:
    """Return a proxy in front of the login node that cuts connections on command."""
    proxy = CutProxy((login_node.sshd.host, login_node.sshd.port))
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
def settings(login_node: LoginNode, tmp_path: Path) -> Iterator[ClusterSettings]:
    """Return the settings of a Slurm cluster with a root of this test's own; what it still runs is ended."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    yield ClusterSettings(
        conn_id="gpu_cluster_default",
        name=f"{login()}@{login_node.sshd.host}:{login_node.sshd.port}",
        root_dir=str(folder / "ml-jobs"),
        engine="slurm",
        slurm_interval_s=INTERVAL_S,
    )
    login_node.slurm.end_jobs()
    kill_everything_under(folder)


@pytest.fixture
def cluster(settings: ClusterSettings, connect: Callable[..., paramiko.SSHClient]) -> Iterator[Cluster]:
    """Return a Slurm cluster, behind the real OpenSSH server."""
    with Cluster(settings, connect) as cluster:
        yield cluster
