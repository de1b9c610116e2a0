"""Word from the kernel about folders, and doing without it."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.linux.inotify import Inotify


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    inotify = Inotify()
    yield inotify
    inotify.close()


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_a_new_file_a_link_and_a_file_that_is_moved_in_are_news(tmp_path: Path, inotify: Inotify) -> None:
    path = folder(tmp_path, "a")
    (tmp_path / "elsewhere").touch()
    assert inotify.follow(1, str(path))
    assert inotify.news() == set()
    (path / "new").touch()
    assert inotify.news() == {1}
    assert inotify.news() == set()
    (path / "link").hardlink_to(path / "new")
    assert inotify.news() == {1}
    (tmp_path / "elsewhere").rename(path / "moved")
    assert inotify.news() == {1}


def test_what_is_written_or_removed_is_none(tmp_path: Path, inotify: Inotify) -> None:
    path = folder(tmp_path, "a")
    (path / "log").touch()
    inotify.follow(1, str(path))
    (path / "log").write_text("more")
    (path / "log").unlink()
    assert inotify.news() == set()


def test_a_folder_can_be_followed_for_several(tmp_path: Path, inotify: Inotify) -> None:
    one, two = folder(tmp_path, "one"), folder(tmp_path, "two")
    for key in (1, 2):
        inotify.follow(key, str(one))
    inotify.follow(3, str(two))
    (one / "x").touch()
    assert inotify.news() == {1, 2}
    inotify.leave(1)
    (one / "y").touch()
    assert inotify.news() == {2}
    inotify.leave(2)
    (one / "z").touch()
    (two / "z").touch()
    assert inotify.news() == {3}


def test_following_another_folder_ends_following_the_one_before(tmp_path: Path, inotify: Inotify) -> None:
    one, two = folder(tmp_path, "one"), folder(tmp_path, "two")
    inotify.follow(1, str(one))
    inotify.follow(1, str(two))
    (one / "x").touch()
    assert inotify.news() == set()
    (two / "x").touch()
    assert inotify.news() == {1}


def test_a_folder_that_is_removed_is_news_and_not_followed(tmp_path: Path, inotify: Inotify) -> None:
    path = folder(tmp_path, "a")
    inotify.follow(1, str(path))
    shutil.rmtree(path)
    assert inotify.follows(1)
    assert inotify.news() == {1}
    assert not inotify.follows(1)
    path.mkdir()
    assert inotify.follow(1, str(path))
    (path / "x").touch()
    assert inotify.news() == {1}


def test_when_the_kernel_has_lost_count_everything_is_news(tmp_path: Path, inotify: Inotify) -> None:
    busy, quiet = folder(tmp_path, "busy"), folder(tmp_path, "quiet")
    inotify.follow(1, str(busy))
    inotify.follow(2, str(quiet))
    for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 1):
        (busy / str(number)).touch()
    assert inotify.news() == {1, 2}


def test_a_folder_that_cannot_be_followed_is_no_error(tmp_path: Path, inotify: Inotify) -> None:
    assert not inotify.follow(1, str(tmp_path / "missing"))
    assert not inotify.follows(1)
    inotify.leave(1)


def test_a_system_without_it_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: object())
    inotify = Inotify()
    assert inotify.fd is None
    assert not inotify.follow(1, str(tmp_path))
    assert inotify.news() == set()
    inotify.close()
