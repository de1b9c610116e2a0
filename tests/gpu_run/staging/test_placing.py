"""Files of a job made out of contents: its own, whether they share blocks or not, and never out of a damaged one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.cache.contents import Contents
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.linux import copying
from airflow_provider_gpu_cluster.gpu_run.linux.copying import shares_blocks
from airflow_provider_gpu_cluster.gpu_run.staging import inputs, placing
from airflow_provider_gpu_cluster.gpu_run.staging.placing import Missing, place
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from tests.gpu_run.cache.kept_contents import LARGE, keep, keep_small, make_contents, sha256_of
from tests.harness.real_disk import real_disk
from tests.harness.small_disk import small_disk

DATA = os.urandom(5 << 20)
MB = 1 << 20
_FIEMAP = 0xC020660B


def row(path: str, data: bytes = DATA, mode: int = 0o644) -> list[Any]:
    return [path, "file", mode, sha256_of(data), len(data)]


def blocks_of(path: str | Path) -> list[tuple[int, int]]:
    """Return where on the disk the blocks of a file lie: of each part its first byte, and how many (FS_IOC_FIEMAP)."""
    most = 100
    request = ctypes.create_string_buffer(32 + most * 56)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        struct.pack_into("=QQLLLL", request, 0, 0, 1 << 62, 1, 0, most, 0)
        fcntl.ioctl(file.fileno(), _FIEMAP, request)
    count = struct.unpack_from("=L", request, 20)[0]
    parts = [struct.unpack_from("=QQQ", request, 32 + number * 56) for number in range(count)]
    return [(physical, length) for _, physical, length in parts]


def free(folder: Path) -> int:
    os.sync()
    found = os.statvfs(folder)
    return found.f_bfree * found.f_frsize


@pytest.fixture(params=["xfs", "btrfs"])
def cloning(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a disk whose files can share blocks."""
    with real_disk(tmp_path / "disk", request.param) as disk:
        yield disk


@pytest.fixture(params=["here", "ext4", "ext2", "tmpfs", "xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder on each of some file systems."""
    folder = tmp_path / "disk"
    if request.param == "here":
        folder.mkdir()
        yield folder
    else:
        with small_disk(folder, 100_000) if request.param == "tmpfs" else real_disk(folder, request.param):
            yield folder


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return make_contents(tmp_path / "root")


def new_folder(disk: Path, name: str) -> Path:
    (disk / name).mkdir()
    return disk / name


def test_a_job_file_is_a_clone_of_its_content(cloning: Path) -> None:
    contents = make_contents(cloning)
    data = os.urandom(50 * MB)
    key = keep(contents, data)
    assert shares_blocks(str(cloning))
    before = free(cloning)
    for name in ("one", "two"):
        place(contents, [row("x", data)], str(new_folder(cloning, name)))
        assert blocks_of(cloning / name / "x") == blocks_of(contents.path_of(key)) != []
    assert before - free(cloning) < MB
    assert (cloning / "one" / "x").read_bytes() == data


def test_what_a_job_writes_into_its_file_nobody_else_has(disk: Path) -> None:
    contents = make_contents(disk)
    key = keep(contents, DATA)
    for name in ("one", "two"):
        assert place(contents, [row("x", mode=0o755)], str(new_folder(disk, name))) == {"x": key}
    with open(disk / "one" / "x", "r+b") as file:
        file.seek(MB)
        file.write(b"mine")
    os.truncate(disk / "one" / "x", 2 * MB)
    assert (disk / "one" / "x").read_bytes() == DATA[:MB] + b"mine" + DATA[MB + 4 : 2 * MB]
    assert (disk / "two" / "x").read_bytes() == DATA
    assert Path(contents.path_of(key)).read_bytes() == DATA
    assert os.stat(disk / "two" / "x").st_mode & 0o777 == 0o755


@pytest.mark.parametrize(("kind", "is_shared"), [("xfs", True), ("btrfs", True), ("ext4", False), ("ext2", False)])
def test_whether_files_can_share_blocks(tmp_path: Path, kind: str, is_shared: bool) -> None:
    with real_disk(tmp_path / "disk", kind) as disk:
        before = sorted(os.listdir(disk))
        assert shares_blocks(str(disk)) is is_shared
        assert sorted(os.listdir(disk)) == before


def test_no_blocks_are_shared_in_memory(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 100) as disk:
        assert not shares_blocks(str(disk))


def test_a_content_that_the_disk_has_damaged_is_given_to_nobody(disk: Path) -> None:
    contents = make_contents(disk)
    key = keep(contents, DATA)
    with open(contents.path_of(key), "r+b") as file:
        file.seek(3 * MB)
        file.write(b"damaged")
    with pytest.raises(Missing):
        place(contents, [row("x")], str(new_folder(disk, "one")))
    assert contents.find(key, len(DATA)) is None


def test_what_was_hashed_in_this_process_is_not_hashed_again(contents: Contents, tmp_path: Path) -> None:
    key = keep(contents, DATA)
    with open(contents.path_of(key), "r+b") as file:
        file.write(b"other")
    folder = new_folder(tmp_path, "one")
    assert place(contents, [row("x")], str(folder), checked={key}) == {"x": key}
    assert (folder / "x").read_bytes()[:5] == b"other"


@pytest.mark.parametrize("size", [1, 100])
def test_a_small_content_that_the_disk_has_damaged_is_given_to_nobody(
    contents: Contents, tmp_path: Path, size: int
) -> None:
    key = keep(contents, b"x" * size)
    (name,) = (name for name in os.listdir(contents.packs.folder) if name.endswith(".data"))
    Path(contents.packs.folder, name).write_bytes(b"y" * size)
    with pytest.raises(Missing):
        place(contents, [row("x", b"x" * size)], str(new_folder(tmp_path, "one")))
    assert contents.find(key, size) is None


def test_holes_stay_holes(disk: Path) -> None:
    contents = make_contents(disk)
    data = bytes(4 * MB) + b"middle" + bytes(4 * MB)
    keep(contents, data)
    path = contents.path_of(sha256_of(data))
    os.unlink(path)
    with open(path, "wb") as file:
        file.truncate(len(data))
        file.seek(4 * MB)
        file.write(b"middle")
    place(contents, [row("x", data)], str(new_folder(disk, "one")))
    assert (disk / "one" / "x").read_bytes() == data
    assert os.stat(disk / "one" / "x").st_blocks * 512 < MB


def test_a_system_that_copies_nothing_by_itself(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old kernels, and copies from one network's file system to another."""

    def copy_file_range(source: int, target: int, count: int, source_at: int, target_at: int) -> int:
        if source_at > 0:
            raise OSError(18, "Invalid cross-device link")
        os.pwrite(target, os.pread(source, MB, 0), 0)
        return MB

    keep(contents, DATA)
    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    monkeypatch.setattr(copying, "clone", lambda source, target: False)
    folder = new_folder(tmp_path, "one")
    place(contents, [row("x")], str(folder))
    assert (folder / "x").read_bytes() == DATA


@pytest.mark.parametrize(("are_clones", "size"), [(True, 7), (False, LARGE + 7)])
def test_what_shares_blocks_needs_no_room_but_small_files_do(are_clones: bool, size: int) -> None:
    rows = [row("d/large", b"x" * LARGE), row("small", b"1234567"), ["d", "dir", 0o755, ""], ["l", "link", 0o755, "d"]]
    described: Any = [{"rows": rows[:1]}, {"rows": rows[1:]}]
    assert placing.size_of(described, are_clones=are_clones) == size


# -- small files, several at a time


def test_many_small_files(contents: Contents, tmp_path: Path) -> None:
    files = {f"d/{number}": b"%d" % (number % 50) * (number % 7) for number in range(500)}
    keep_small(contents, {sha256_of(data): data for data in files.values() if data})
    rows = [["d", "dir", 0o755, ""], *(row(path, data) for path, data in files.items())]
    folder = new_folder(tmp_path, "one")
    assert place(contents, rows, str(folder)) == {path: sha256_of(data) for path, data in files.items()}
    assert {path: (folder / path).read_bytes() for path in files} == files


@pytest.mark.parametrize("failing", [0, 40, 499])
def test_an_error_in_a_thread_is_told_once_and_nothing_gets_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    contents = make_contents(tmp_path)
    job = Root(str(tmp_path)).job("job")
    job.create()
    small = [b"%d" % number for number in range(500)]
    keep_small(contents, {sha256_of(data): data for data in small})
    failed: list[bytes] = []

    def write_all(fd: int, data: bytes) -> None:
        if data == small[failing]:
            failed.append(data)
            raise OSError(28, "No space left on device")
        copying.write_all(fd, data)

    monkeypatch.setattr(placing, "write_all", write_all)
    monkeypatch.setattr(placing, "FILES_AT_ONCE", 10)
    threads = threading.active_count()
    wanted: Any = {"type": "upload", "kind": "data", "name": "x", "written": "x", "single_file": False, "digest": "x"}
    with pytest.raises(Refused, match=r"^x: no space left on the disk of .*job: ") as caught:
        inputs.bring(job, contents, wanted, [row(data.decode(), data) for data in small])
    assert caught.value.code == protocol.NO_SPACE
    assert failed == [small[failing]]
    assert threading.active_count() == threads
    assert os.listdir(job.at("data")) == []
    assert not [name for name in os.listdir(job.at(".job")) if name.startswith("incoming")]


def test_what_goes_wrong_elsewhere_is_told_while_threads_write(contents: Contents, tmp_path: Path) -> None:
    small = {sha256_of(b"%d" % number): b"%d" % number for number in range(200)}
    keep_small(contents, small)
    rows = [row(data.decode(), data) for data in small.values()]
    with pytest.raises(Missing, match=sha256_of(b"gone")):
        place(contents, [*rows, row("gone", b"gone")], str(new_folder(tmp_path, "one")))
