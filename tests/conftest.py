"""
Fixtures that every test can use.

A cluster is a real OpenSSH server (one for each pytest worker) with folders of its own for each test. Nothing
of a test lives on: what its cluster still runs at the end is killed.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import gc
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
import pytest

from tests.harness.leftovers import kill_everything_under
from tests.harness.patience import PATIENCE_S
from tests.servers.proxy import CutProxy
from tests.servers.sshd import HOW_TO_INSTALL, SSHD, RealSshd, login

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
    from airflow_provider_gpu_cluster.sandbox import Sandbox

REPOSITORY = Path(__file__).resolve().parent.parent

# What tests start begins as quickly as for users: with modules that are compiled once, and with this very Python, which
# a version manager would look for anew each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

# Airflow reads these at its first import, so nothing above may import it.
_AIRFLOW_HOME = tempfile.mkdtemp(prefix="gpu-cluster-tests-")
atexit.register(shutil.rmtree, _AIRFLOW_HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith(("AIRFLOW_", "_AIRFLOW_"))]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=_AIRFLOW_HOME,
    AIRFLOW__CORE__DAGS_FOLDER=str(REPOSITORY / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK="False",
    # DAG runs in one process have no scheduler to confuse, so a sensor may come back at once.
    AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="0",
)

VIRTUAL_GPUS = 4

# While thousands of tests are collected, nothing becomes garbage that would be worth looking for.
gc.disable()


# By how long they take.
_LONG_GROUPS = ("whole-airflow", "browser", "slurm", "slurm-faults", "training", "upgrade", "system")
# Fixtures that start a server (an SSH server, a Slurm, a whole Airflow, a store of objects) or have packages installed.
_HEAVY = {"sshd", "slurm", "slurm_without_accounting", "lab", "sandbox", "s3", "wheels", "site"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Mark tests that take much, so that ``make check`` can leave them out, and say which belong together.

    Tests without a cluster are quick. Those of a file go to one worker, since each would have to import what they need,
    and since the work of pytest-xdist grows with the square of what it has to give away.
    """
    has_workers = config.pluginmanager.hasplugin("xdist")
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if _HEAVY & fixtures:
            item.add_marker("heavy")
        if not has_workers:
            continue
        if "chromium" in fixtures:
            item.add_marker(pytest.mark.xdist_group("browser"))  # they share an Airflow and a browser
        elif not (_HEAVY | {"cluster_folder"}) & fixtures and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(REPOSITORY / "tests"))))


class _LongestFirst:
    """
    The order in which workers of pytest-xdist get tests, with its option ``--no-loadscope-reorder``.

    The groups that take minutes, most of which they wait, come first: whichever began late would end long after
    everything else. At the end come single tests, so that all workers have something to do until then.
    """

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        groups = [self._group(item) for item in items]
        number = Counter(groups)
        places = {
            group: (0, _LONG_GROUPS.index(group)) if group in _LONG_GROUPS else (1, -number[group]) for group in number
        }
        places[""] = (2, 0)
        order = sorted(range(len(items)), key=lambda at: (places[groups[at]], groups[at]))
        items[:] = [items[at] for at in order]

    @staticmethod
    def _group(item: pytest.Item) -> str:
        marker = item.get_closest_marker("xdist_group")
        return str(marker.args[0]) if marker else ""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_LongestFirst())


def pytest_collection_finish() -> None:
    """Look for garbage from now on, but not among what was made until now."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is remembered of files, and those half arrived, out of the cache of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> None:
    """Let the processes of tests begin as those of a terminal do; a shell without job control lets some be ignored."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """Return a real OpenSSH server; a machine without one fails the test, and never skips it."""
    if SSHD is None:
        pytest.fail(HOW_TO_INSTALL, pytrace=False)
    server = RealSshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def cluster_folder(tmp_path: Path) -> Iterator[Path]:
    """Return this test's own folder on the cluster; what still runs there is killed at the end."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    try:
        yield folder
    finally:
        kill_everything_under(folder)


@pytest.fixture
def cluster_settings(sshd: RealSshd, cluster_folder: Path) -> ClusterSettings:
    """Return the settings of a cluster with 4 virtual GPUs that belongs to this test alone."""
    from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
    from tests.harness.unpacked_program import provide_unpacked

    provide_unpacked(cluster_folder / "ml-jobs")
    return ClusterSettings(
        conn_id="gpu_cluster_default",
        name=f"{login()}@{sshd.host}:{sshd.port}",
        root_dir=str(cluster_folder / "ml-jobs"),
        lease_dir=str(cluster_folder / "leases"),
        virtual_gpus=VIRTUAL_GPUS,
    )


@pytest.fixture
def ssh_connect(sshd: RealSshd) -> Iterator[Callable[..., paramiko.SSHClient]]:
    """Return a function that opens an SSH connection to ``sshd``, directly or through the port of a proxy."""
    with connections_to(sshd) as connect:
        yield connect


@contextlib.contextmanager
def connections_to(sshd: RealSshd) -> Iterator[Callable[..., paramiko.SSHClient]]:
    """Yield a function that opens an SSH connection to a server, directly or through the port of a proxy."""
    clients: list[paramiko.SSHClient] = []

    def connect(port: int | None = None) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        clients.append(client)
        kind, key = sshd.host_key.split()
        address = f"[{sshd.host}]:{port or sshd.port}"
        client.get_host_keys().add(address, kind, paramiko.PKey.from_type_string(kind, base64.b64decode(key)))
        client.connect(
            sshd.host,
            port or sshd.port,
            login(),
            pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(sshd.client_key)),
            allow_agent=False,
            look_for_keys=False,
            timeout=PATIENCE_S,
        )
        return client

    try:
        yield connect
    finally:
        for client in clients:
            client.close()


@pytest.fixture
def cluster(cluster_settings: ClusterSettings, ssh_connect: Callable[..., paramiko.SSHClient]) -> Iterator[Cluster]:
    """Return a cluster that belongs to this test alone, behind the real OpenSSH server."""
    from airflow_provider_gpu_cluster.cluster import Cluster

    with Cluster(cluster_settings, ssh_connect) as cluster:
        yield cluster


@pytest.fixture
def gpu_cluster_conn(
    sshd: RealSshd, cluster_settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return the Airflow connection of that cluster, and make it Airflow's ``gpu_cluster_default``."""
    connection = {
        "conn_type": "gpu_cluster",
        "host": sshd.host,
        "port": sshd.port,
        "login": login(),
        "extra": {
            "private_key": sshd.client_key,
            "host_key": sshd.host_key,
            "root_dir": cluster_settings.root_dir,
            "lease_dir": cluster_settings.lease_dir,
            "virtual_gpus": cluster_settings.virtual_gpus,
        },
    }
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
    return connection


@pytest.fixture
def lab(gpu_cluster_conn: dict[str, Any], cluster_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the connections of two clusters with 4 and 2 virtual GPUs, whose pool is the connection ``lab``."""
    from tests.harness.unpacked_program import provide_unpacked

    gpus = {"gpu01": 4, "gpu02": 2}
    for conn_id, number in gpus.items():
        folder = cluster_folder / conn_id
        provide_unpacked(folder / "ml-jobs")
        own = {"root_dir": str(folder / "ml-jobs"), "lease_dir": str(folder / "leases"), "virtual_gpus": number}
        value = {**gpu_cluster_conn, "extra": {**gpu_cluster_conn["extra"], **own}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))
    pool = {"conn_type": "gpu_cluster_pool", "extra": {"members": list(gpus)}}
    monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps(pool))
    return list(gpus)


@pytest.fixture
def cut_proxy(sshd: RealSshd) -> Iterator[CutProxy]:
    """Return a proxy in front of the real OpenSSH server that cuts connections on command."""
    proxy = CutProxy((sshd.host, sshd.port))
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Return a running sandbox cluster with 4 virtual GPUs."""
    from airflow_provider_gpu_cluster.sandbox import Sandbox

    with Sandbox(gpus=VIRTUAL_GPUS) as sandbox:
        yield sandbox


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Return a function that calls another until its result is true, and returns that."""

    def wait(check: Callable[[], Any], *, timeout_s: float = PATIENCE_S, every_s: float = 0.05) -> Any:
        deadline = time.monotonic() + timeout_s
        began = time.monotonic()
        while not (result := check()):
            now = time.monotonic()
            assert now < deadline, f"not within {timeout_s} s; last result: {result!r}"
            # A check that takes long would slow down what it waits for.
            time.sleep(max(every_s, min(now - began, 1)))
            began = time.monotonic()
        return result

    return wait
