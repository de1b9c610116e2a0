"""Only regular files are opened, nothing waits for anybody, and no read is without a bound."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run.linux import locks, regular_files
from airflow_provider_gpu_cluster.gpu_run.linux.regular_files import NotRegular

KINDS = {
    "pipe": "a pipe",
    "folder": "a folder",
    "link": "a link",
    "dangling": "a link",
    "socket": "a socket",
    "device": "a device",
}


def put(kind: str, path: Path) -> None:
    """Put something that is no file at a path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)  # the path of a socket may not be long
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "device":
        if os.getuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    else:
        path.symlink_to("/dev/zero" if kind == "link" else "nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_never_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    put(kind, path)
    for open_it in (
        regular_files.open_to_read,
        regular_files.open_to_append,
        lambda path: regular_files.read(path, 10),
        lambda path: regular_files.read_end(path, 10),
    ):
        with pytest.raises(NotRegular, match=KINDS[kind]) as raised:
            open_it(str(path))
        assert (raised.value.filename, raised.value.strerror) == (str(path), f"is {KINDS[kind]}, and not a file")
    with pytest.raises(OSError, match=str(path)):
        locks.lock(str(path), timeout_s=None)


def test_a_link_to_a_file_is_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0123456789")
    (tmp_path / "link").symlink_to("file")
    assert regular_files.read(str(tmp_path / "link"), 10, follow=True) == b"0123456789"
    assert regular_files.read_end(str(tmp_path / "link"), 4, follow=True) == b"6789"
    (tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(NotRegular, match="a device"):
        regular_files.read_end(str(tmp_path / "endless"), 4, follow=True)


def test_no_more_is_read_than_is_sane(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 1 << 40)
    assert regular_files.read_end(str(path), 4) == bytes(4)
    with pytest.raises(NotRegular, match="has more than 1000 bytes"):
        regular_files.read(str(path), 1000)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_takes_the_place_of_a_file_at_the_last_moment_is_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.touch()
    found = os.stat(path)
    path.unlink()
    put(kind, path)
    monkeypatch.setattr(os, "stat", lambda *arguments, **more: found)
    with pytest.raises(NotRegular):
        regular_files.read(str(path), 10)


def test_appending_makes_a_file_that_nobody_else_can_read_and_that_waits_like_any_other(tmp_path: Path) -> None:
    fd = regular_files.open_to_append(str(tmp_path / "log"))
    os.write(fd, b"a")
    assert (os.get_blocking(fd), os.get_inheritable(fd)) == (True, False)
    os.close(fd)
    os.close(regular_files.open_to_append(str(tmp_path / "log")))
    assert (tmp_path / "log").read_bytes() == b"a"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_other_failures_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        regular_files.open_to_read(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        regular_files.open_to_append(str(tmp_path / "nothing" / "x"))
