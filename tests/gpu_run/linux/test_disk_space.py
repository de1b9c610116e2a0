"""Whether there is room: on real disks, within real quotas, and where nothing tells."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.linux import disk_space
from airflow_provider_gpu_cluster.gpu_run.linux.disk_space import Room, check_room, room_for
from tests.harness.real_disk import real_disk, set_quota
from tests.harness.small_disk import fill, make_read_only, small_disk

MB = 1 << 20


@pytest.fixture(params=["btrfs", "ext4", "xfs", "ext2"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with real_disk(tmp_path / "disk", request.param) as disk:
        yield disk


def test_what_fits_and_what_does_not(disk: Path) -> None:
    assert room_for(str(disk), 10 * MB) == Room(10 * MB)
    free = shutil.disk_usage(disk).free
    room = room_for(str(disk), 10**12)
    # What xfs lets go it counts as free a moment later.
    assert room.nbytes == pytest.approx(free, rel=0.1)
    assert not room.within_quota
    with pytest.raises(Refused, match=rf"x needs 1,000,000\.0 MB in {disk}, and there is room for \d+\.\d MB; make"):
        check_room(str(disk), 10**12, "x")
    # Nothing was written, and nothing is left.
    assert shutil.disk_usage(disk).free == pytest.approx(free, rel=0.1)
    assert set(os.listdir(disk)) <= {"lost+found"}


def test_a_full_disk(disk: Path) -> None:
    subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}", "bs=1M"], capture_output=True)
    # A disk that is nearly full is not taken for a quota, however little of what is free can be had.
    assert room_for(str(disk), 10 * MB).nbytes < MB
    with pytest.raises(Refused, match=r"needs 10\.5 MB in .* room for 0\.\d MB; make") as caught:
        check_room(str(disk), 10 * MB, "x")
    assert caught.value.code == protocol.NO_SPACE
    check_room(str(disk), 0, "x")


def test_a_quota_is_noticed_and_named(tmp_path: Path) -> None:
    with real_disk(tmp_path / "disk", "btrfs") as disk:
        set_quota(disk, 50 * MB)
        (disk / "mine").write_bytes(os.urandom(20 * MB))
        os.sync()
        assert room_for(str(disk), 20 * MB) == Room(20 * MB)
        room = room_for(str(disk), 100 * MB)
        assert 25 * MB < room.nbytes < 30 * MB
        assert room.within_quota
        with pytest.raises(
            Refused, match=r"x needs 104\.9 MB in .*, and there is room for (2|3)\d\.\d MB within your "
        ):
            check_room(str(disk), 100 * MB, "x")


def test_a_disk_in_memory_takes_none_to_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "disk", 100 * 1024) as disk:
        # Whatever is set aside there is taken from all who work on the host.
        monkeypatch.setattr(disk_space, "FALLOC_FL_KEEP_SIZE", -1)
        assert room_for(str(disk), 50 * MB) == Room(50 * MB)
        fill(disk, leave_kb=1024)
        room = room_for(str(disk), 50 * MB)
        assert 0.9 * MB < room.nbytes <= MB
        assert not room.within_quota


def test_a_disk_that_tells_no_size_is_believed(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", str(folder)], capture_output=True).returncode:
        pytest.fail("ramfs cannot be mounted") if os.environ.get("CI") == "true" else pytest.skip("only root may mount")
    try:
        assert shutil.disk_usage(folder).total == 0
        check_room(str(folder), 50 * MB, "x")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_how_large_one_file_may_be_is_not_how_much_room_there_is(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, hard))
    try:
        assert room_for(str(tmp_path), 2 * MB) == Room(2 * MB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_needs_no_room(tmp_path: Path) -> None:
    assert room_for(str(tmp_path), 0) == Room(0)
    check_room(str(tmp_path), -5, "x")


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_room(str(tmp_path / "gone"), 1, "x")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with real_disk(tmp_path / "disk", "ext4") as disk:
        make_read_only(disk)
        with pytest.raises(OSError, match="Read-only file system"):
            check_room(str(disk), MB, "x")
