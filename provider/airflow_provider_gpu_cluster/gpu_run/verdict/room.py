"""Which of the folders that a job writes to have no room: what a program prints does not always name a full disk."""

from __future__ import annotations

import contextlib
import os
import re

from ..errors import Refused
from ..linux.disk_space import room_for

# Less room than this is none.
_LEAST_BYTES = 1 << 20
_USUAL = ("/dev/shm", "/tmp", "/var/tmp")
_QUOTED = r"['\"`\u2018]([^'\"`\n\u2018\u2019]{1,300})['\"`\u2019]"
_MOST_PATHS = 100
# File systems of this host alone: to ask another host's may take for ever.
_LOCAL = ("tmpfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "ramfs", "jfs", "bcachefs")


def without_room(job: str, code: str, words: str) -> tuple[str, ...]:
    """
    Return the full ones among the folders that a job writes to.

    :param job: its directory.
    :param code: the folder that it runs in.
    :param words: what it has printed; paths in quotes are looked at as well.
    """
    named = [
        os.path.dirname(os.path.join(code, path)) for path in re.findall(_QUOTED, words)[-_MOST_PATHS:] if "/" in path
    ]
    mounts = _local_mounts()
    folders = [
        _existing(path) for path in (*_USUAL, os.environ.get("TMPDIR", "/tmp"), *named) if _is_local(path, mounts)
    ]
    return tuple(folder for folder in dict.fromkeys([*folders, job]) if _is_full(folder))


def is_over_quota(folder: str) -> bool:
    """Return whether a quota leaves no room in a folder."""
    with contextlib.suppress(OSError, Refused):
        room = room_for(folder, _LEAST_BYTES)
        return room.within_quota and room.nbytes < _LEAST_BYTES
    return False


def _is_full(folder: str) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    if found.f_flag & os.ST_RDONLY or not found.f_blocks:
        return False
    return found.f_bavail * found.f_frsize < min(_LEAST_BYTES, found.f_blocks * found.f_frsize // 10) or (
        found.f_files > 0 and found.f_favail == 0
    )


def _existing(path: str) -> str:
    while path != "/" and not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def _local_mounts() -> dict[str, bool]:
    """Return of each mounted folder whether its file system is of this host alone; see proc_pid_mountinfo(5)."""
    found: dict[str, bool] = {}
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields = before.split()
            if len(fields) > 4 and after:
                found[fields[4].replace("\\040", " ")] = after.split()[0] in _LOCAL
    return found


def _is_local(path: str, mounts: dict[str, bool]) -> bool:
    path = os.path.normpath(path)
    while path not in mounts and path not in ("/", ""):
        path = os.path.dirname(path)
    return mounts.get(path or "/", False)
