"""A pool of real clusters for tasks of Airflow: each has a way there that can be cut, and records that tell all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.jobs import parameter_checks
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.operators import in_pool
from airflow_provider_gpu_cluster.pools import asking, holding, placing_round
from tests.harness import jobs
from tests.harness.leftovers import kill_everything_under
from tests.harness.patience import PATIENCE_S
from tests.harness.unpacked_program import provide_unpacked
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd, login

# One that is cut off is tried again for half of that.
_SILENT_S = 20.0


@dataclass(frozen=True)
class RunOfJob:
    """
    An attempt, by the records of its cluster.

    :param end: its ``exit.json``; empty while it waits or runs.
    """

    conn_id: str
    job_id: str
    number: int
    end: Mapping[str, Any]

    @property
    def is_alive(self) -> bool:
        """Whether it waits or runs."""
        return not self.end


class PoolSite:
    """
    Clusters behind one SSH server, as connections of Airflow.

    :param folder: an empty one.
    :param connect: opens an SSH connection to the server.
    :param gpus: of each cluster, by its connection.
    """

    def __init__(
        self, folder: Path, sshd: RealSshd, connect: Callable[..., paramiko.SSHClient], gpus: Mapping[str, int]
    ) -> None:
        self._folder = folder
        self._connect = connect
        self._sshd = sshd
        self.gpus = gpus
        self.proxies = {name: CutProxy((sshd.host, sshd.port)) for name in gpus}
        self.runs = folder / "runs"
        self.gate = folder / "gate"
        for name in gpus:
            provide_unpacked(self.root(name))

    def root(self, name: str) -> Path:
        """Return the root of a cluster."""
        return self._folder / name / "ml-jobs"

    def environ(self) -> dict[str, str]:
        """Return the connections, as variables of the environment."""
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(self._connection(name)) for name in self.gpus}

    def _connection(self, name: str) -> dict[str, Any]:
        return {
            "conn_type": "gpu_cluster",
            "host": self._sshd.host,
            "port": self.proxies[name].port,
            "login": login(),
            "extra": {
                "private_key": self._sshd.client_key,
                "host_key": self._sshd.host_key,
                "root_dir": str(self.root(name)),
                "lease_dir": str(self._folder / name / "leases"),
                "virtual_gpus": self.gpus[name],
            },
        }

    def cluster(self, name: str) -> Cluster:
        """Return a cluster, over a way that nothing cuts."""
        settings = ClusterSettings(
            conn_id=name,
            name=name,
            root_dir=str(self.root(name)),
            lease_dir=str(self._folder / name / "leases"),
            virtual_gpus=self.gpus[name],
        )
        return Cluster(settings, self._connect)

    def cut(self, name: str) -> None:
        """Let nobody get to a cluster."""
        self.proxies[name].refusing = True
        self.proxies[name].cut_now()

    def mend(self, name: str) -> None:
        """Let them get there again."""
        self.proxies[name].refusing = False

    def close(self) -> None:
        """End all that runs there."""
        for proxy in self.proxies.values():
            proxy.close()
        kill_everything_under(self._folder)

    # -- jobs

    @property
    def command(self) -> str:
        """What notes where a job begins, and runs until the gate is open."""
        return (
            f'echo "$JOB_ID $JOB_DIR" >> {self.runs}; echo "of $JOB_DIR" > "$OUTPUT_DIR/where"; '
            f"while [ ! -e {self.gate} ]; do sleep 0.1; done"
        )

    def block(self, name: str, job_id: str = "blocker", **spec: Any) -> None:
        """Let a job have the GPUs of a cluster."""
        with self.cluster(name) as cluster:
            jobs.submit(cluster, "sleep 1000", job_id=job_id, gpus=self.gpus[name], **spec)
            jobs.wait(cluster, job_id, JobState.RUNNING)

    def free(self, name: str, job_id: str = "blocker") -> None:
        """Let that job end."""
        with self.cluster(name) as cluster:
            cluster.cancel([job_id], requested_by="a test", wait_s=20)

    # -- the proof

    @property
    def attempts(self) -> list[RunOfJob]:
        """All attempts of all jobs but those that block, by the records of all clusters."""
        return [
            RunOfJob(name, folder.parents[2].name, int(folder.name), _read(folder / "exit.json"))
            for name in self.gpus
            for folder in sorted(self.root(name).glob("*/.job/attempts/[0-9]*"))
            if not folder.parents[2].name.startswith("blocker")
        ]

    @property
    def alive(self) -> list[str]:
        """The clusters on which something waits or runs."""
        return [one.conn_id for one in self.attempts if one.is_alive]

    def began(self, job_id: str | None = None) -> list[str]:
        """Return the clusters on which jobs have begun to run, in their order."""
        lines = self.runs.read_text().splitlines() if self.runs.exists() else []
        found = [line.split() for line in lines]
        return [Path(path).parts[-3] for job, path in found if job_id in (None, job)]


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text()))
    return {}


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no cluster for silent that is only slow, on a busy machine."""
    monkeypatch.setitem(cast("dict[str, Any]", asking.offers_of.__kwdefaults__), "wait_s", _SILENT_S)
    monkeypatch.setattr(placing_round, "WAIT_S", _SILENT_S)
    monkeypatch.setattr(in_pool, "_CANCEL_WAIT_S", PATIENCE_S)


@contextlib.contextmanager
def pool_site(
    folder: Path,
    sshd: RealSshd,
    connect: Callable[..., paramiko.SSHClient],
    monkeypatch: pytest.MonkeyPatch,
    *,
    names: Sequence[str] = ("gpu01", "gpu02"),
    margin_s: float = 0.3,
) -> Iterator[PoolSite]:
    """
    Yield a pool of clusters with a GPU each, which are connections of Airflow; a failover takes seconds.

    :param margin_s: what is added to the time after which a job is certain to be gone, in seconds.
    """
    be_patient(monkeypatch)
    monkeypatch.setattr(parameter_checks, "SHORTEST_FAILOVER_S", 0.0)
    monkeypatch.setattr(holding, "MARGIN_S", margin_s)
    folder.mkdir()
    site = PoolSite(folder, sshd, connect, dict.fromkeys(names, 1))
    for name, value in site.environ().items():
        monkeypatch.setenv(name, value)
    try:
        yield site
    finally:
        site.close()
