"""Outputs on their way into an object store: by way of the worker, once, and whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import CollectError, GpuClusterConnectionError
from airflow_provider_gpu_cluster.files.checksums import cache_folder
from airflow_provider_gpu_cluster.sinks import ObjectStorageSink, open_sink
from tests.harness import jobs
from tests.servers.proxy import CutProxy

Connect = Callable[..., paramiko.SSHClient]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Return the address of an S3 server that has a bucket."""
    if not os.environ.get("CI"):
        pytest.importorskip("moto", reason="pip install 'moto[s3]' flask flask-cors s3fs")
        pytest.importorskip("s3fs")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **access)
    client.create_bucket(Bucket="bucket")
    client.close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], ObjectStorageSink]:
    """Return what opens a store, as each task does."""
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "memory":
        attach(protocol="memory", fs=MemoryFileSystem())
        return lambda: _opened(f"memory://bucket/{tmp_path.name}")
    import s3fs

    address = request.getfixturevalue("s3_server")
    attach(protocol="s3", conn_id="lab", fs=s3fs.S3FileSystem(key="test", secret="test", endpoint_url=address))
    return lambda: _opened(f"s3://lab@bucket/{tmp_path.name}")


def _opened(url: str) -> ObjectStorageSink:
    sink = open_sink(url)
    assert isinstance(sink, ObjectStorageSink)
    return sink


@pytest.fixture
def outputs(cluster: Cluster, cluster_settings: ClusterSettings) -> Path:
    """Return the outputs of a job ``job`` on the cluster, with two files in them."""
    cluster.stage("job", (), record=jobs.record())
    folder = Path(cluster_settings.root_dir) / "job" / "outputs"
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "model.pth").write_bytes(os.urandom(20 << 20))
    (folder / "metrics.json").write_text("7")
    return folder


def content(sink: ObjectStorageSink, outputs: Path) -> bool:
    names = ("checkpoints/model.pth", "metrics.json")
    return all(sink.read(name) == (outputs / name).read_bytes() for name in names)


def on_the_worker() -> list[Path]:
    return list((cache_folder() / "partial").iterdir())


def test_what_was_put_is_not_fetched_again(
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    outputs: Path,
    open_store: Callable[[], ObjectStorageSink],
    cut_proxy: CutProxy,
) -> None:
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        first = cluster.collect("job", open_store())
        assert [file.path for file in first] == ["checkpoints/model.pth", "metrics.json"]
        assert content(open_store(), outputs)
        before = cut_proxy.passed["down"]
        assert cluster.collect("job", open_store()) == first
        assert cut_proxy.passed["down"] - before < 20_000
        # Somebody else put another of the same size.
        open_store().put("metrics.json", memoryview(b"8"), 0o644)
        cluster.collect("job", open_store())
    assert content(open_store(), outputs)
    assert on_the_worker() == []


def test_what_has_arrived_on_the_worker_is_gone_on_with(
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    outputs: Path,
    open_store: Callable[[], ObjectStorageSink],
    cut_proxy: CutProxy,
) -> None:
    def connect() -> paramiko.SSHClient:
        if cut_proxy.connections:
            raise ConnectionRefusedError("no second connection")
        return ssh_connect(cut_proxy.port)

    with Cluster(cluster_settings, connect, retry_for_s=1) as cluster:
        cluster.statuses(["job"])
        cut_proxy.cut_after(nbytes=15 << 20, direction="down")
        with pytest.raises(GpuClusterConnectionError):
            cluster.collect("job", open_store())
    (partial,) = on_the_worker()
    arrived = partial.stat().st_size
    assert arrived > 10 << 20
    with Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port)) as cluster:
        cluster.statuses(["job"])
        before = cut_proxy.passed["down"]
        cluster.collect("job", open_store())
        assert cut_proxy.passed["down"] - before < (20 << 20) - arrived + 200_000
    assert content(open_store(), outputs)
    assert on_the_worker() == []


def test_a_put_that_fails_keeps_what_was_fetched(
    cluster: Cluster, outputs: Path, open_store: Callable[[], ObjectStorageSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_file(*arguments: Any, **more: Any) -> None:
        raise OSError(5, "the store is down")

    sink = open_store()
    with monkeypatch.context() as patch:
        patch.setattr(sink._file_system, "put_file", put_file)
        with pytest.raises(CollectError, match="cannot be written: the store is down"):
            cluster.collect("job", sink)
    assert [path.stat().st_size for path in on_the_worker()] == [20 << 20]
    cluster.collect("job", open_store())
    assert content(open_store(), outputs)
