"""Where collected files go: whole or not at all, and never elsewhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_gpu_cluster.exceptions import CollectError, InvalidJobError, NoSpaceError
from airflow_provider_gpu_cluster.files.checksums import cache_folder, open_checksums
from airflow_provider_gpu_cluster.sinks import LocalSink, ObjectStorageSink, open_sink

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def put(sink: LocalSink | ObjectStorageSink, path: str = "a/b.bin", mode: int = 0o644) -> None:
    """Bring a small file."""
    sink.put(path, memoryview(CONTENT), mode)


def bring(sink: LocalSink | ObjectStorageSink, path: str = "a/b.bin", mode: int = 0o644, stamp: str = "1") -> None:
    """Bring a file in pieces."""
    with sink.partial(path, f"job/{path}", stamp) as partial:
        partial.start_at(0)
        partial.write(memoryview(CONTENT[:3]))
        partial.write(memoryview(CONTENT[3:]))
        assert partial.is_whole(len(CONTENT), SHA256)
        sink.publish(partial, path, mode)


class PlainFileSystem(MemoryFileSystem):  # type: ignore[misc]
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


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def left_behind() -> list[str]:
    """Return what lies on this machine on its way into a store."""
    folder = cache_folder() / "partial"
    return os.listdir(folder) if folder.exists() else []


def listing(sink: LocalSink | ObjectStorageSink) -> list[str]:
    if isinstance(sink, LocalSink):
        return sorted(path.name for path in sink.destination.rglob("*") if path.is_file())
    return sorted(name.rpartition("/")[2] for name in sink._file_system.find(sink.destination.path))


@pytest.fixture(params=[put, bring])
def give(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a way in which a file comes: at once, or in pieces."""
    way: Callable[..., None] = request.param
    return way


def test_file_appears_under_its_name(sink: LocalSink | ObjectStorageSink, give: Callable[..., None]) -> None:
    give(sink)
    assert sink.read("a/b.bin") == CONTENT
    assert listing(sink) == ["b.bin"]
    assert left_behind() == []


def test_file_that_was_there_is_replaced(sink: LocalSink | ObjectStorageSink, give: Callable[..., None]) -> None:
    put(sink)
    sink.put("a/b.bin", memoryview(b"old"), 0o644)
    give(sink)
    assert sink.read("a/b.bin") == CONTENT
    assert listing(sink) == ["b.bin"]


def test_what_has_arrived_is_kept_and_gone_on_with(sink: LocalSink | ObjectStorageSink) -> None:
    assert sink.arrived("a/x", "job/a/x", "1") == 0
    with sink.partial("a/x", "job/a/x", "1") as partial:
        partial.start_at(0)
        partial.write(memoryview(CONTENT[:3]))
        assert not partial.is_whole(len(CONTENT), SHA256)
    assert "x" not in listing(sink)
    assert sink.arrived("a/x", "job/a/x", "1") == 3
    assert sink.arrived("a/x", "job/a/x", "2") == 0
    assert sink.arrived("a/x", "another job/a/x", "1") == 0
    with sink.partial("a/x", "job/a/x", "1") as partial:
        assert partial.size == 3
        partial.start_at(2)
        partial.write(memoryview(CONTENT[2:]))
        assert partial.is_whole(len(CONTENT), SHA256)
        sink.publish(partial, "a/x", 0o644)
    assert listing(sink) == ["x"]
    assert sink.read("a/x") == CONTENT
    assert left_behind() == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a/./b", "x\0y", "a/"])
def test_path_that_leaves_the_folder_is_refused(
    sink: LocalSink | ObjectStorageSink, give: Callable[..., None], path: str
) -> None:
    with pytest.raises(CollectError, match="leaves the outputs folder"):
        give(sink, path)
    assert listing(sink) == []


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path, give: Callable[..., None]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CollectError, match="link"):
        give(LocalSink(tmp_path / "home"))
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "elsewhere" / "b.bin").write_bytes(CONTENT)
    with open_checksums() as checksums, pytest.raises(CollectError, match="link"):
        LocalSink(tmp_path / "home").present({"a/b.bin": (len(CONTENT), 0o644)}, checksums)


def test_link_in_place_of_a_file_is_replaced(tmp_path: Path, give: Callable[..., None]) -> None:
    (tmp_path / "elsewhere").write_bytes(CONTENT[::-1])
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    sink = LocalSink(tmp_path)
    with open_checksums() as checksums:
        assert sink.present({"x": (len(CONTENT), 0o644)}, checksums) == []
    give(sink, "x")
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(("mode", "runs"), [(0o644, False), (0o755, True), (0o4777, True)])
def test_only_the_executable_bit_is_kept(tmp_path: Path, give: Callable[..., None], mode: int, runs: bool) -> None:
    give(LocalSink(tmp_path), "x", mode)
    assert os.access(tmp_path / "x", os.X_OK) is runs
    assert (tmp_path / "x").stat().st_mode & 0o7022 == 0


def test_long_names_fit(tmp_path: Path, give: Callable[..., None]) -> None:
    give(LocalSink(tmp_path), "n" * 255)
    assert (tmp_path / ("n" * 255)).exists()


def test_folder_in_the_way_is_an_error(tmp_path: Path, give: Callable[..., None]) -> None:
    (tmp_path / "a" / "b.bin").mkdir(parents=True)
    with pytest.raises(CollectError, match="cannot be written"):
        give(LocalSink(tmp_path))
    # What came in pieces is whole, and waits for the folder to go.
    assert [name for name in listing(LocalSink(tmp_path)) if not name.startswith(".gpu-collect-")] == []


def test_full_disk_is_named(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path)
    with sink.partial("x", "job/x", "1") as partial:
        partial.start_at(0)
        with open("/dev/full", "wb", buffering=0) as full:
            own, partial._fd = partial._fd, full.fileno()
            with pytest.raises(NoSpaceError, match="No space left"):
                partial.write(memoryview(CONTENT))
            partial._fd = own


def test_space_is_looked_at_before(sink: LocalSink | ObjectStorageSink) -> None:
    sink.check_space([])
    sink.check_space([1 << 20, 1 << 20])
    with pytest.raises(NoSpaceError, match=r"1,125,899,906\.8 MB are to be collected, and [\d,.]+ MB are free"):
        sink.check_space([1, 1 << 50])


def test_what_is_there_is_known_again(sink: LocalSink | ObjectStorageSink) -> None:
    files = {"a/b.bin": (len(CONTENT), 0o644), "a/c": (len(CONTENT), 0o644)}
    with open_checksums() as checksums:
        assert sink.present(files, checksums) == []
        put(sink)
        sink.remember("a/b.bin", SHA256, checksums)
    with open_checksums() as checksums:
        assert sink.present(files, checksums) == ["a/b.bin"]
        assert sink.sha256_of("a/b.bin", checksums) == SHA256
        assert sink.present({"a/b.bin": (6, 0o644)}, checksums) == []
        sink.put("a/b.bin", memoryview(b"another"), 0o644)
        assert sink.sha256_of("a/b.bin", checksums) != SHA256
        assert sink.sha256_of("a/none", checksums) is None


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
