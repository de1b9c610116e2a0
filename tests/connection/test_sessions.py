"""Servers that allow few sessions at once over a connection (MaxSessions)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.sinks.local import LocalSink
from airflow_provider_gpu_cluster.sources import parse_sources
from tests.conftest import connections_to
from tests.harness.jobs import submit, wait
from tests.servers.sshd import RealSshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """Return a server that allows one session at a time."""
    server = RealSshd(tmp_path_factory.mktemp("sshd"), more="MaxSessions 1")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("transfer", ["stream", "sftp"])
def test_one_session_at_a_time(
    cluster_settings: ClusterSettings, sshd: RealSshd, tmp_path: Path, transfer: str
) -> None:
    """The first use, and a transfer and a cancellation while another session lasts."""
    (tmp_path / "data").write_bytes(b"data")
    (source,) = parse_sources(code=None, data=str(tmp_path / "data"), models=None, base_dir=tmp_path)
    connections = 0
    with connections_to(sshd) as connect:

        def counted() -> object:
            nonlocal connections
            connections += 1
            return connect()

        settings = dataclasses.replace(cluster_settings, transfer=transfer)
        with Cluster(settings, counted, retry_for_s=0) as cluster:  # type: ignore[arg-type]
            submit(cluster, 'cp "$DATA_DIR/data" "$OUTPUT_DIR"', job_id="job", sources=[source])
            assert wait(cluster, "job").state == "SUCCEEDED"
            collected = cluster.collect("job", LocalSink(tmp_path / "home"))
            assert "data" in {file.path for file in collected}
            channel, _ = cluster.session.hold("watch", {})
            for _ in range(3):
                cluster.cancel(["job"], requested_by="me")
            channel.close()
    assert connections == 2
