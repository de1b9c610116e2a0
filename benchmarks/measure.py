"""What the benchmarks share: a cluster behind a stock sshd, medians, and tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from tests.harness.leftovers import kill_everything_under
from tests.servers.sshd import RealSshd, login

CONN_ID = GpuClusterHook.default_conn_name
SSH_CONN_ID = "bench_ssh"


@dataclass(frozen=True)
class Bench:
    """
    A cluster to measure: a real OpenSSH server with the stock limits, and virtual GPUs.

    :param folder: temporary, removed at the end.
    """

    sshd: RealSshd
    settings: ClusterSettings
    folder: Path

    def connect(self) -> paramiko.SSHClient:
        """Open one SSH connection, as every task does: through the hook and an Airflow connection."""
        os.environ.update(self.connections())
        return GpuClusterHook(CONN_ID).connect()

    def connections(self) -> dict[str, str]:
        """Return the Airflow connections to the cluster as environment variables: ours, and the ssh provider's."""
        where = {"host": self.sshd.host, "port": self.sshd.port, "login": login()}
        keys = {"private_key": self.sshd.client_key, "host_key": self.sshd.host_key}
        ours = {
            **keys,
            "root_dir": self.settings.root_dir,
            "lease_dir": self.settings.lease_dir,
            "virtual_gpus": self.settings.virtual_gpus,
            "engine": self.settings.engine,
        }
        return {
            f"AIRFLOW_CONN_{CONN_ID.upper()}": json.dumps({"conn_type": "gpu_cluster", **where, "extra": ours}),
            f"AIRFLOW_CONN_{SSH_CONN_ID.upper()}": json.dumps({"conn_type": "ssh", **where, "extra": keys}),
        }

    def cluster(self) -> Cluster:
        """Return the cluster, with a connection of its own."""
        return Cluster(self.settings, self.connect)

    @property
    def address(self) -> str:
        """The user and host, as OpenSSH's own programs take them."""
        return f"{login()}@{self.sshd.host}"

    def ssh(self, *command: str) -> list[str]:
        """Return the command line of OpenSSH's own client for a remote command."""
        return ["ssh", *self.ssh_options(), self.address, *command]

    def ssh_options(self) -> list[str]:
        """Return the options with which OpenSSH's own programs, scp among them, find and enter the cluster."""
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text(f"[{self.sshd.host}]:{self.sshd.port} {self.sshd.host_key}\n")
        options = {
            "UserKnownHostsFile": known_hosts,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ControlPath": "none",
            "Port": self.sshd.port,
            "IdentityFile": self.sshd.client_key_file,
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]


@contextlib.contextmanager
def bench(*, gpus: int, host: str = RealSshd.host, within: Sequence[str] = ()) -> Iterator[Bench]:
    """
    Start a cluster with that many virtual GPUs, and end whatever it still runs.

    :param host: the address at which it listens.
    :param within: a command that starts the server, and puts it where that address is.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-cluster-bench-") as name:
        folder = Path(name)
        (folder / "sshd").mkdir()
        sshd = RealSshd(folder / "sshd", host=host, within=within)
        sshd.start()
        settings = ClusterSettings(
            conn_id=CONN_ID,
            name=f"{login()}@{sshd.host}:{sshd.port}",
            root_dir=str(folder / "ml-jobs"),
            lease_dir=str(folder / "leases"),
            virtual_gpus=gpus,
        )
        try:
            yield Bench(sshd, settings, folder)
        finally:
            kill_everything_under(folder)
            sshd.stop()


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def paired(runs: int, *actions: Callable[[], object]) -> list[list[float]]:
    """Time actions in turn, A B A B ..., so that a machine whose speed drifts treats them alike."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(runs):
        for action, mine in zip(actions, times, strict=True):
            mine.append(timed(action))
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios, pair by pair."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def percentile(times: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of all do not exceed."""
    return sorted(times)[max(0, math.ceil(len(times) * percent / 100) - 1)]


def line(what: str, times: Sequence[float]) -> None:
    """Print one row: median, least and most."""
    print(
        f"{what:<62} median {statistics.median(times) * 1000:8.1f} ms   "
        f"(min {min(times) * 1000:.1f}, max {max(times) * 1000:.1f}, n {len(times)})"
    )
