"""What a job had before and still wants is handed on, as long as it is its own and unchanged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.staging.replaced_folder import ReplacedFolder
from tests.gpu_run.cache.kept_contents import sha256_of

DATA = os.urandom(5000)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "old" / "sub").mkdir(parents=True)
    make(tmp_path / "old" / "sub" / "file")
    return tmp_path / "old"


def make(path: Path, data: bytes = DATA, mode: int = 0o600) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def hand_on(old: Path, mode: int = 0o644, data: bytes = DATA) -> bool:
    return ReplacedFolder(str(old)).hand_on("sub/file", mode, sha256_of(data), len(data), str(old.parent / "new"))


@pytest.mark.parametrize(("mode", "wanted"), [(0o600, 0o644), (0o644, 0o644), (0o700, 0o755), (0o755, 0o755)])
def test_what_is_as_it_was_is_handed_on(old: Path, mode: int, wanted: int) -> None:
    (old / "sub" / "file").chmod(mode)
    assert hand_on(old, wanted)
    assert (old / "sub" / "file").samefile(old.parent / "new")
    shutil.rmtree(old)
    assert (old.parent / "new").read_bytes() == DATA
    assert (old.parent / "new").stat().st_nlink == 1


def _change(old: Path) -> None:
    """As a job does, and as no look at size and time can see."""
    path = old / "sub" / "file"
    before = path.stat()
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _put_link_to_folder(old: Path) -> None:
    os.rename(old / "sub", old.parent / "others")
    (old / "sub").symlink_to(old.parent / "others")


def _put_link_to_file(old: Path) -> None:
    os.rename(old / "sub" / "file", old.parent / "others")
    (old / "sub" / "file").symlink_to(old.parent / "others")


def _put_fifo(old: Path) -> None:
    (old / "sub" / "file").unlink()
    os.mkfifo(old / "sub" / "file")


def _put_old_elsewhere(old: Path) -> None:
    os.rename(old, old.parent / "others")
    old.symlink_to(old.parent / "others")


@pytest.mark.parametrize(
    "what",
    [
        _change,
        _put_link_to_folder,
        _put_link_to_file,
        _put_fifo,
        _put_old_elsewhere,
        lambda old: (old / "sub" / "file").unlink(),
        lambda old: (old / "sub" / "file").chmod(0o400),
        lambda old: os.truncate(old / "sub" / "file", 4999),
        lambda old: os.link(old / "sub" / "file", old.parent / "kept by the job"),
        shutil.rmtree,
    ],
)
def test_what_is_not_is_left(old: Path, what: Callable[[Path], object]) -> None:
    what(old)
    assert not hand_on(old)
    assert not (old.parent / "new").exists()


def test_an_empty_file_and_another_mode(old: Path) -> None:
    make(old / "sub" / "file", b"")
    assert not hand_on(old, 0o755, b"")
    assert hand_on(old, 0o644, b"")


def test_a_folder_whose_files_cannot_have_second_names(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT; a file system that cannot is no part of this kernel."""

    def link(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", source)

    monkeypatch.setattr(os, "link", link)
    assert not hand_on(old)
