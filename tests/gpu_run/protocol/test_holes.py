"""Data and holes of files, on file systems that know holes and on those that do not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol import holes
from tests.harness.real_disk import real_disk
from tests.harness.small_disk import small_disk

SIZE = 4 << 20
Extents = list[tuple[int, int, bool]]


@pytest.fixture(params=["here", "tmpfs", "xfs", "btrfs", "ext2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder on each of some file systems."""
    if request.param == "here":
        yield tmp_path
    else:
        disk = tmp_path / "disk"
        with small_disk(disk, 16384) if request.param == "tmpfs" else real_disk(disk, request.param):
            yield disk


def extents_of(path: Path, start: int = 0, end: int = SIZE) -> Extents:
    with open(path, "rb") as file:
        return list(holes.extents(file.fileno(), start, end))


def check(path: Path, found: Extents, start: int = 0, end: int = SIZE) -> None:
    """Check that parts follow one another from start to end, and that only zeros are left out."""
    assert [part[0] for part in found] + [end] == [start] + [part[1] for part in found]
    content = path.read_bytes()
    for first, last, is_data in found:
        assert first < last
        assert is_data or not any(content[first:last])


def test_holes_are_found_and_data_is_never_taken_for_one(folder: Path) -> None:
    path = folder / "sparse"
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for at in (1 << 20, 3 << 20):
            file.seek(at)
            file.write(b"x" * 100_000)
    for start, end in ((0, SIZE), (1, SIZE - 1), ((1 << 20) + 5, 3 << 20), (3 << 20, SIZE), (7, 7)):
        check(path, extents_of(path, start, end), start, end)
    parts = extents_of(path)
    assert [is_data for _, _, is_data in parts] == [False, True, False, True, False]
    assert sum(end - start for start, end, is_data in parts if is_data) < 400_000


def test_all_of_it_is_a_hole_or_none(folder: Path) -> None:
    with open(folder / "empty", "wb") as file:
        file.truncate(SIZE)
    (folder / "full").write_bytes(b"x" * SIZE)
    (folder / "nothing").touch()
    assert extents_of(folder / "empty") == [(0, SIZE, False)]
    assert [is_data for _, _, is_data in extents_of(folder / "full")] == [True]
    assert extents_of(folder / "nothing", 0, 0) == []


def test_what_lies_behind_the_end_is_a_hole(folder: Path) -> None:
    (folder / "short").write_bytes(b"x" * 8192)
    assert extents_of(folder / "short", 0, 20000) == [(0, 8192, True), (8192, 20000, False)]


def test_a_file_system_that_knows_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lseek(fd: int, at: int, how: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    with open(tmp_path / "x", "wb") as file:
        file.truncate(SIZE)
    assert extents_of(tmp_path / "x", 5) == [(5, SIZE, True)]


def test_a_file_that_is_cut_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * SIZE)
    real = os.lseek

    def lseek(fd: int, at: int, how: int) -> int:
        if how == os.SEEK_HOLE:
            os.truncate(path, 0)
        return real(fd, at, how)

    monkeypatch.setattr(os, "lseek", lseek)
    with contextlib.closing(open(path, "rb")) as file:
        assert list(holes.extents(file.fileno(), 0, SIZE)) == [(0, SIZE, False)]
