"""A disk that is soon full: a small tmpfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[Path]:
    """
    Mount an empty disk of that size on a new folder.

    Only root may mount. Where the tests run as somebody else this skips, and under CI it fails.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k,mode=0755", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        why = f"a small disk cannot be mounted here ({done.stderr.strip()}): run this test as root"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_read_only(folder: Path) -> None:
    """Make a mounted disk read-only from now on."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(folder: Path, leave_kb: int = 0) -> None:
    """Use up a disk but for so much."""
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    if leave_kb:
        with open(folder / "filler", "r+b") as file:
            file.truncate(max(0, os.path.getsize(folder / "filler") - leave_kb * 1024))
