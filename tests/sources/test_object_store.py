"""Sources behind ``ObjectStoragePath``: fsspec's memory store, and S3 as a real server speaks it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io.store import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.exceptions import InvalidJobError, SourceError
from airflow_provider_gpu_cluster.sources import UploadSource, parse_sources


def upload(kind: str, written: Any) -> UploadSource:
    [source] = parse_sources(**{"code": None, "data": None, "models": None, kind: written}, base_dir=Path("/nowhere"))
    assert isinstance(source, UploadSource)
    return source


def tree(source: UploadSource) -> dict[str, str]:
    found = {}
    for entry in source.entries():
        with entry.open() as stream:
            content = stream.read()
        assert len(content) == entry.size
        found[entry.path] = "dir" if entry.kind == "dir" else content.decode()
    return found


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    # Airflow keeps what was attached first for the whole process.
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    store = MemoryFileSystem()
    attach(protocol="memory", fs=store)
    attach(protocol="memory", conn_id="my_conn", fs=store)
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def test_an_object(memory: MemoryFileSystem) -> None:
    memory.pipe("/bucket/sets/x.csv", b"x")
    for written in ("memory://bucket/sets/x.csv", "memory://my_conn@bucket/sets/x.csv"):
        source = upload("data", written)
        assert (source.name, source.written, source.single_file) == ("x.csv", written, True)
        assert tree(source) == {"x.csv": "x"}
        assert source.digest.startswith("etag:")
    given = upload("data", [ObjectStoragePath("memory://bucket/sets/x.csv", conn_id="my_conn")])
    assert given.written == "memory://my_conn@/bucket/sets/x.csv"
    assert tree(given) == {"x.csv": "x"}


def test_everything_below_a_prefix(memory: MemoryFileSystem) -> None:
    memory.pipe({"/bucket/code/train.py": b"t", "/bucket/code/a/b/x": b"x", "/bucket/codex": b"other"})
    memory.pipe("/bucket/code/__pycache__/x.pyc", b"nothing is left out")
    source = upload("code", "memory://bucket/code")
    assert (source.name, source.single_file) == ("", False)
    assert tree(source) == {
        "__pycache__": "dir",
        "__pycache__/x.pyc": "nothing is left out",
        "a": "dir",
        "a/b": "dir",
        "a/b/x": "x",
        "train.py": "t",
    }
    assert upload("models", "memory://bucket/code/").name == "code"


def test_digest_follows_the_content(memory: MemoryFileSystem) -> None:
    memory.pipe("/bucket/a/x", b"1")
    first = upload("data", "memory://bucket/a").digest
    assert upload("data", "memory://bucket/a").digest == first
    memory.pipe("/bucket/a/x", b"2")
    assert upload("data", "memory://bucket/a").digest != first


@pytest.mark.parametrize("written", ["memory://bucket/nothing", "memory://bucket/nothing/"])
def test_an_object_that_is_missing(memory: MemoryFileSystem, written: str) -> None:
    with pytest.raises(SourceError, match=f"{written}: there is no"):
        upload("data", written)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a//b"])
def test_keys_that_are_no_paths(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    memory.pipe("/bucket/x", b"")
    monkeypatch.setattr(memory, "find", lambda *_, **__: {f"/bucket/{key}": {"size": 0}})
    with pytest.raises(SourceError, match="cannot become a file of that name"):
        list(upload("data", "memory://bucket").entries())


def test_a_key_that_is_file_and_folder(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/x", b"")
    monkeypatch.setattr(memory, "find", lambda *_, **__: {"/bucket/a": {"size": 0}, "/bucket/a/b": {"size": 0}})
    with pytest.raises(SourceError, match=r"a part of 'a/b' is an object and cannot become a folder as well"):
        _ = upload("data", "memory://bucket").digest


def test_a_store_that_fails(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("503 slow down")

    memory.pipe("/bucket/x", b"x")
    source = upload("data", "memory://bucket/x")
    monkeypatch.setattr(memory, "open", fail)
    with pytest.raises(SourceError, match=r"memory://bucket/x: could not be read \(RuntimeError: 503 slow down\)"):
        tree(source)
    monkeypatch.setattr(memory, "info", fail)
    with pytest.raises(SourceError, match="check the Airflow connection"):
        upload("data", "memory://bucket/x")


def test_a_store_that_fails_half_way(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise RuntimeError("connection reset")

    memory.pipe("/bucket/x", b"x")
    [entry] = upload("data", "memory://bucket/x").entries()
    monkeypatch.setattr(memory, "open", lambda *_, **__: Broken())
    with entry.open() as stream, pytest.raises(SourceError, match="memory://bucket/x: could not be read"):
        stream.read(10)


def test_a_store_without_a_name(memory: MemoryFileSystem) -> None:
    with pytest.raises(InvalidJobError, match="has no name of its own"):
        upload("data", "memory:///")


@pytest.mark.parametrize("written", ["nosuch://bucket/x", "ftp://h/x"])
def test_a_scheme_that_nothing_reads(written: str) -> None:
    with pytest.raises(InvalidJobError, match=f"'{written}': nothing here can read .*install the Airflow provider"):
        upload("data", written)


@pytest.mark.parametrize("written", ["https://s3cret@h/o/r.git", "https://me:s3cret@h/o/r.git"])
def test_a_web_address_of_a_repository(written: str) -> None:
    with pytest.raises(InvalidJobError, match=r"for a Git repository write git\+https://") as caught:
        upload("code", written)
    assert "s3cret" not in str(caught.value)


def test_a_secret_key_in_the_url() -> None:
    with pytest.raises(InvalidJobError, match="put it into an Airflow connection") as caught:
        upload("code", "s3://KEY:s3cret@bucket/x")
    assert "s3cret" not in str(caught.value)


def test_file_urls_are_read_as_paths_are(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "x.pyc").touch()
    (tmp_path / "a b" / "y").write_text("y")
    by_url, by_path = upload("code", f"file://{tmp_path}/a b"), upload("code", f"{tmp_path}/a b")
    assert tree(by_url) == {"y": "y"}
    assert by_url.digest == by_path.digest
    with pytest.raises(SourceError, match=f"there is no file or folder '{tmp_path}/nowhere'"):
        upload("code", f"file://{tmp_path}/nowhere")


def test_a_url_that_is_none() -> None:
    with pytest.raises(InvalidJobError, match="write it like s3://bucket/key"):
        upload("code", "s3://[x/y")


# -- S3 ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """Return a client of an S3 server on a loopback port that ``s3://`` goes to."""
    if not os.environ.get("CI"):
        pytest.importorskip("moto", reason="pip install 'moto[s3]' flask flask-cors s3fs")
        pytest.importorskip("s3fs")
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **access)
    client.create_bucket(Bucket="bucket")
    attach(
        protocol="s3",
        conn_id="my_s3",
        fs=s3fs.S3FileSystem(key="test", secret="test", endpoint_url=f"http://{host}:{port}"),
    )
    try:
        yield client
    finally:
        server.stop()


def test_s3(s3: Any) -> None:
    for key, body in (("set/", b""), ("set/a/x", b"x"), ("set/y", b"y" * 100_000), ("set2", b"other")):
        s3.put_object(Bucket="bucket", Key=key, Body=body)
    source = upload("data", "s3://my_s3@bucket/set")
    assert source.name == "set"
    assert tree(source) == {"a": "dir", "a/x": "x", "y": "y" * 100_000}
    assert upload("data", "s3://my_s3@bucket/set/").digest == source.digest
    assert tree(upload("models", "s3://my_s3@bucket/set2")) == {"set2": "other"}

    s3.put_object(Bucket="bucket", Key="set/y", Body=b"z" * 100_000)
    assert upload("data", "s3://my_s3@bucket/set").digest != source.digest


@pytest.mark.parametrize("path", ["bucket/nothing", "bucket/nothing/", "nobucket/x"])
def test_what_is_missing_in_s3(s3: Any, path: str) -> None:
    with pytest.raises(SourceError, match=f"s3://my_s3@{path}: there is no"):
        upload("data", f"s3://my_s3@{path}")


def test_without_rights_in_s3(s3: Any) -> None:
    import s3fs

    attach(
        protocol="s3",
        conn_id="wrong_port",
        fs=s3fs.S3FileSystem(endpoint_url="http://127.0.0.1:1", anon=True),
    )
    with pytest.raises(SourceError, match="s3://wrong_port@bucket/x: could not be read"):
        upload("data", "s3://wrong_port@bucket/x")
