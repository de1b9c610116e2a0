"""Where collected files go: whole or not at all, and never elsewhere."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.exceptions import CollectError, InvalidJobError, NoSpaceError
from airflow_provider_gpu_cluster.sinks import LocalSink, ObjectStorageSink, open_sink

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def put(sink: LocalSink | ObjectStorageSink, path: str = "a/b.bin", mode: int = 0o644, sha256: str = SHA256) -> None:
    with sink.file(path, len(CONTENT), mode) as file:
        file.write(CONTENT[:3])
        file.write(CONTENT[3:])
        file.publish(sha256)


class PlainFileSystem(MemoryFileSystem):
    """A store on which a put can be seen while it goes on."""

    protocol = "plain"
    store: ClassVar[dict[str, Any]] = {}


STORES = {"memory": MemoryFileSystem(), "plain": PlainFileSystem()}


@pytest.fixture(params=["local", "file", "memory", "plain"])
def sink(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LocalSink | ObjectStorageSink:
    """Return a sink of each kind: a folder, and stores with and without an atomic put."""
    # Airflow keeps what was attached first for the whole process.
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})
    if request.param == "local":
        return open_sink(str(tmp_path))
    if request.param == "file":
        return open_sink(f"file://{tmp_path}")
    attach(protocol="memory", fs=STORES[request.param])
    return open_sink(f"memory://{tmp_path.name}/{request.param}")


def listing(sink: LocalSink | ObjectStorageSink) -> list[str]:
    if isinstance(sink, LocalSink):
        return sorted(path.name for path in sink.destination.rglob("*") if path.is_file())
    return sorted(name.rpartition("/")[2] for name in sink._file_system.find(sink.destination.path))


def test_file_appears_under_its_name(sink: LocalSink | ObjectStorageSink) -> None:
    put(sink)
    assert sink.read("a/b.bin") == CONTENT
    assert listing(sink) == ["b.bin"]


def test_file_that_was_there_is_replaced(sink: LocalSink | ObjectStorageSink) -> None:
    put(sink)
    put(sink)
    assert sink.read("a/b.bin") == CONTENT


def test_wrong_checksum_leaves_nothing(sink: LocalSink | ObjectStorageSink) -> None:
    with pytest.raises(CollectError, match="checksum"):
        put(sink, sha256="0" * 64)
    assert listing(sink) == []


def test_wrong_checksum_leaves_the_old_file(sink: LocalSink | ObjectStorageSink) -> None:
    put(sink)
    with pytest.raises(CollectError):
        put(sink, sha256="0" * 64)
    assert sink.read("a/b.bin") == CONTENT


def test_missing_bytes_leave_nothing(sink: LocalSink | ObjectStorageSink) -> None:
    with sink.file("x", 100, 0o644) as file:
        file.write(CONTENT)
        with pytest.raises(CollectError, match="7 bytes arrived of 100"):
            file.publish(SHA256)
    assert listing(sink) == []


def test_what_is_not_published_is_thrown_away(sink: LocalSink | ObjectStorageSink) -> None:
    with sink.file("x", 7, 0o644) as file:
        file.write(CONTENT)
    assert listing(sink) == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a/./b", "x\0y", "a/"])
def test_path_that_leaves_the_folder_is_refused(sink: LocalSink | ObjectStorageSink, path: str) -> None:
    with pytest.raises(CollectError, match="leaves the outputs folder"):
        put(sink, path)
    assert listing(sink) == []


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CollectError, match="link"):
        put(LocalSink(tmp_path / "home"))
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(("mode", "runs"), [(0o644, False), (0o755, True), (0o4777, True)])
def test_only_the_executable_bit_is_kept(tmp_path: Path, mode: int, runs: bool) -> None:
    put(LocalSink(tmp_path), "x", mode)
    assert os.access(tmp_path / "x", os.X_OK) is runs
    assert (tmp_path / "x").stat().st_mode & 0o7022 == 0


def test_long_names_fit(tmp_path: Path) -> None:
    put(LocalSink(tmp_path), "n" * 255)
    assert (tmp_path / ("n" * 255)).exists()


def test_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "b.bin").mkdir(parents=True)
    with pytest.raises(CollectError, match="cannot be written"):
        put(LocalSink(tmp_path))


def test_full_disk_is_named(tmp_path: Path) -> None:
    with LocalSink(tmp_path).file("x", 7, 0o644) as file:
        file._target = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        with file._target, pytest.raises(NoSpaceError, match="No space left"):
            file.write(CONTENT)


def test_relative_destination_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="relative"):
        open_sink("models")


def test_home_and_object_paths_are_destinations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(open_sink("~/models")) == str(tmp_path / "models")
    assert isinstance(open_sink(ObjectStoragePath(f"file://{tmp_path}")), LocalSink)
    attach(protocol="memory", fs=STORES["memory"])
    assert isinstance(open_sink(ObjectStoragePath("memory://bucket/x")), ObjectStorageSink)
    with pytest.raises(InvalidJobError, match="gs://"):
        open_sink("gs://bucket/x")
