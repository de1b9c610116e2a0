"""What is remembered of files: never a checksum of what a file was before."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.files import checksums as module
from airflow_provider_gpu_cluster.files.checksums import Checksums, cache_folder, open_checksums, stamp_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that were read."""
    names: list[str] = []
    real = module.sha256_of

    def counting(file: Any) -> tuple[str, int]:
        names.append(os.path.basename(file.name))
        return real(file)

    monkeypatch.setattr(module, "sha256_of", counting)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file count as settled at once."""
    monkeypatch.setattr(module, "SETTLED_NS", 0)


def of(path: Path) -> str:
    with open_checksums() as checksums:
        return checksums.of_file(str(path))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "link").symlink_to("x")
    assert [of(tmp_path / "x"), of(tmp_path / "x"), of(tmp_path / "link")] == [sha256(b"1")] * 3
    assert read == ["x"]


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_changed_is_read_again_though_its_size_and_time_are_the_same(
    tmp_path: Path, read: list[str]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1")
    times = path.stat()
    assert of(path) == sha256(b"1")
    time.sleep(0.02)
    path.write_bytes(b"2")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert of(path) == sha256(b"2")
    (tmp_path / "y").write_bytes(b"3")
    os.utime(tmp_path / "y", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "y").replace(path)
    assert of(path) == sha256(b"3")


def test_a_file_of_just_now_is_not_remembered(tmp_path: Path, read: list[str]) -> None:
    """A clock may stand still between two writes."""
    (tmp_path / "x").write_bytes(b"1")
    assert of(tmp_path / "x") == of(tmp_path / "x")
    assert read == ["x", "x"]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", [b"ordinary", b"a b\nc", b"\xff\xfe", "ünï…".encode(), b"'; DROP TABLE checksums; --"])
def test_names_of_any_bytes(tmp_path: Path, read: list[str], name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(name)
    assert of(path) == of(path) == sha256(name)
    assert len(read) == 1


def test_what_no_program_of_ours_wrote_down_is_made_anew(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "checksums.db").write_bytes(b"no database at all" * 1000)
    with open_checksums() as checksums:
        checksums.remember("s3://x", "1", "abc")
    with open_checksums() as checksums:
        assert checksums.recall("s3://x", "1") == "abc"


def test_a_database_that_is_damaged_inside_only_costs_work(cache: Path, tmp_path: Path) -> None:
    with open_checksums() as checksums:
        for number in range(2000):
            checksums.remember(f"s3://{number}", "1", "abc")
    with open(cache / "checksums.db", "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(os.path.getsize(cache / "checksums.db") - 4096))
    (tmp_path / "x").write_bytes(b"1")
    assert of(tmp_path / "x") == sha256(b"1")


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_a_home_that_cannot_be_written_only_costs_work(cache: Path, tmp_path: Path, obstacle: str) -> None:
    if obstacle == "file":
        cache.parent.write_text("in the way")
    else:
        (cache / "checksums.db").mkdir(parents=True)
    (tmp_path / "x").write_bytes(b"1")
    assert of(tmp_path / "x") == sha256(b"1")
    with open_checksums() as checksums:
        checksums.remember("s3://x", "1", "abc")
        assert checksums.recall("s3://x", "1") == "abc"


def test_addresses_and_stamps() -> None:
    with open_checksums() as checksums:
        assert not checksums.knows("s3://x")
        checksums.remember("s3://x", "1", "abc")
        assert checksums.recall("s3://x", "1") == "abc"
    with open_checksums() as checksums:
        assert checksums.knows("s3://x")
        assert checksums.recall("s3://x", "2") is None
        assert checksums.recall("s3://y", "1") is None
        checksums.remember("s3://x", "2", "def")
        assert checksums.recall("s3://x", "1") is None
        assert checksums.recall("s3://x", "2") == "def"


def test_a_transfer_of_hours_keeps_nobody_waiting_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0)
    with open_checksums() as long:
        long.remember("s3://x", "1", "abc")
        began = time.monotonic()
        with open_checksums() as other:
            assert other.recall("s3://x", "1") == "abc"
            other.remember("s3://y", "1", "def")
        assert time.monotonic() - began < 4
        assert long.recall("s3://y", "1") == "def"


def test_what_is_old_is_forgotten_now_and_then(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET_ODDS", 1)
    with open_checksums() as checksums:
        checksums.remember("s3://new", "1", "abc")
        checksums.remember("s3://old", "1", "abc")
    with sqlite3.connect(cache / "checksums.db") as database:
        database.execute("UPDATE checksums SET noted_at = 0 WHERE address = ?", (b"s3://old",))
    database.close()
    with open_checksums():
        pass
    with open_checksums() as checksums:
        assert (checksums.knows("s3://new"), checksums.knows("s3://old")) == (True, False)


def test_the_cache_is_the_users_own(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checksums():
        assert cache.stat().st_mode & 0o077 == 0
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "airflow-provider-gpu-cluster"


def test_without_a_database(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    checksums = Checksums(None)
    assert checksums.of_file(str(tmp_path / "x")) == sha256(b"1")
    checksums.write_down()
    assert stamp_of((tmp_path / "x").stat()) == stamp_of((tmp_path / "x").stat())
