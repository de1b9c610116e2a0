"""The sandbox: one cluster or several on this machine, and the Airflow connections to them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from airflow_provider_gpu_cluster.sandbox.cluster import SandboxCluster

ONE_CLUSTER = "gpu_cluster_default"
POOL = "gpu_cluster_pool"


class Sandbox:
    """
    Clusters on this machine, as a context manager. They listen only on loopback, with keys of their own.

    Everything submitted to them runs as the current user. Leaving the context ends the jobs that still run, unless
    ``root`` is given.

    One cluster is the connection ``gpu_cluster_default``. Several are ``gpu01``, ``gpu02`` and so on, and
    ``gpu_cluster_pool`` is the pool of them all; ``root_dir``, ``port`` and so on are then those of the first, and
    each of ``clusters`` has its own. Each of them can be made to fail (:meth:`SandboxCluster.cut_off`, ``hang``,
    ``crash``) and brought back (``restore``), to try what happens then.

    :param gpus: number of virtual GPUs; a list gives each cluster its own.
    :param port: TCP port to listen on; 0 takes a free one. Further clusters take the ports after it.
    :param root: folder for keys, jobs and GPU leases; the folder and running jobs are kept for the next time. Several
        clusters have a folder each in it. None makes a temporary folder, which is removed at the end.
    :param fake_gpus: what its GPUs are said to do, each by ``percent``, ``memory_bytes``, ``total_bytes``, ``power_w``
        and ``celsius``; the last entry is for all others. It is written into ``gpus.json`` in the folder of each
        cluster, which may be changed while it runs. None leaves it to the file that the variable GPU_RUN_FAKE_NVML
        names, if there is one: otherwise nothing is known of what virtual GPUs do.
    :param clusters: number of clusters; None makes as many as ``gpus`` has numbers.
    :raises ValueError: the numbers of clusters and GPUs do not go together.
    :raises OSError: a port is taken, or the folder cannot be written.
    """

    host = SandboxCluster.host

    def __init__(
        self,
        *,
        gpus: int | Sequence[int] = 4,
        port: int = 0,
        root: str | Path | None = None,
        fake_gpus: Sequence[Mapping[str, float]] | None = None,
        clusters: int | None = None,
    ) -> None:
        each = [gpus] * (1 if clusters is None else clusters) if isinstance(gpus, int) else list(gpus)
        if not each or min(each) < 1:
            raise ValueError(f"a sandbox needs at least one cluster, with at least one GPU each, not {each}")
        if clusters is not None and clusters != len(each):
            raise ValueError(f"numbers of GPUs are given for {len(each)} clusters, not for {clusters}")
        self.temporary = root is None
        self.folder = Path(root).expanduser().absolute() if root else Path()
        conn_ids = [ONE_CLUSTER] if len(each) == 1 else [f"gpu{number:02}" for number in range(1, len(each) + 1)]
        self.clusters = tuple(
            SandboxCluster(
                conn_id,
                self._folder_of(conn_id),
                gpus=count,
                port=port and port + number,
                fake_gpus=fake_gpus,
            )
            for number, (conn_id, count) in enumerate(zip(conn_ids, each, strict=True))
        )

    def _folder_of(self, conn_id: str) -> Path:
        return self.folder if conn_id == ONE_CLUSTER else self.folder / conn_id

    def start(self) -> None:
        """Start all clusters and return when they accept connections."""
        if self.temporary:
            self.folder = Path(tempfile.mkdtemp(prefix="gpu-sandbox-"))
            for cluster in self.clusters:
                cluster.folder = self._folder_of(cluster.conn_id)
        try:
            for cluster in self.clusters:
                cluster.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all clusters; end what runs in a temporary folder, and remove the folder."""
        ends_jobs = self.temporary and self.folder != Path()
        for cluster in self.clusters:
            cluster.stop(end_jobs=ends_jobs)
        if ends_jobs:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def gpus(self) -> int:
        """Number of virtual GPUs, of all clusters together."""
        return sum(cluster.gpus for cluster in self.clusters)

    @property
    def port(self) -> int:
        """The port of the (first) cluster."""
        return self.clusters[0].port

    @property
    def root_dir(self) -> Path:
        """The folder of the jobs of the (first) cluster."""
        return self.clusters[0].root_dir

    @property
    def lease_dir(self) -> Path:
        """The folder of the GPU leases of the (first) cluster."""
        return self.clusters[0].lease_dir

    @property
    def login(self) -> str:
        """The user that jobs run as."""
        return self.clusters[0].login

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to the (first) cluster, in the form of ``airflow connections add --conn-json``."""
        return self.clusters[0].connection

    @property
    def conn_ids(self) -> list[str]:
        """The connections of the clusters."""
        return [cluster.conn_id for cluster in self.clusters]

    @property
    def pool_connection(self) -> dict[str, Any] | None:
        """The connection ``gpu_cluster_pool``, whose members are all clusters; None if there is only one."""
        if len(self.clusters) == 1:
            return None
        return {
            "conn_type": "gpu_cluster_pool",
            "description": f"Sandbox of {len(self.clusters)} clusters",
            "extra": {"members": self.conn_ids, "policy": "soonest"},
        }

    @property
    def connections(self) -> dict[str, str]:
        """All connections: each environment variable that makes Airflow know one, and its value."""
        connections = {cluster.conn_id: cluster.connection for cluster in self.clusters}
        if (pool := self.pool_connection) is not None:
            connections[POOL] = pool
        return {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(value) for conn_id, value in connections.items()}

    def environ(self) -> dict[str, str]:
        """Return the environment variables that make the clusters connections of Airflow."""
        return self.connections
