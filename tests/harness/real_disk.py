"""A disk with a file system of one's choice: an image on a loop device."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_MAKE = {
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "ext4": ["mkfs.ext4", "-q"],
    # It can neither share blocks nor set any aside.
    "ext2": ["mkfs.ext2", "-q"],
}
# xfs makes none that is smaller, and what is not written takes up nothing.
_SIZE = 400 << 20


@contextlib.contextmanager
def real_disk(folder: Path, kind: str) -> Iterator[Path]:
    """
    Mount an empty disk of 400 MB on a new folder.

    Only root may mount. Where the tests run as somebody else this skips, and under CI it fails.
    """
    folder.mkdir()
    image = folder.with_name(folder.name + ".image")
    with open(image, "wb") as file:
        file.truncate(_SIZE)
    try:
        _run([*_MAKE[kind], str(image)])
        _run(["mount", "-o", "loop", str(image), str(folder)])
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        why = f"a disk with {kind} cannot be made here ({said}): run this test as root, by 'make test'"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    finally:
        # It lives as long as it is mounted.
        image.unlink()
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def set_quota(disk: Path, nbytes: int) -> None:
    """Limit what may lie on a disk with btrfs, whoever owns it."""
    _run(["btrfs", "quota", "enable", str(disk)])
    # It still counts what is there, and limits nothing before it has.
    _run(["btrfs", "quota", "rescan", "-w", str(disk)])
    _run(["btrfs", "qgroup", "limit", str(nbytes), str(disk)])


def _run(command: list[str]) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
