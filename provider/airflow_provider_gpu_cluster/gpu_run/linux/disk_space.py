"""Whether there is room for what is about to arrive: on the disk, and within the user's quota."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from typing import NamedTuple

from .. import protocol
from ..errors import Refused

FALLOC_FL_KEEP_SIZE = 1
_TMPFS_MAGIC = 0x01021994
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Room(NamedTuple):
    """
    How many bytes fit, as far as one has asked.

    :param within_quota: it is the user's quota that lets no more in, and not the disk.
    """

    nbytes: int
    within_quota: bool = False


def check_room(folder: str, needed: int, what: str) -> None:
    """
    Refuse what does not fit.

    :param what: what needs the room, for a person.
    :raises Refused: naming how much is needed and how much there is.
    """
    room = room_for(folder, needed)
    if room.nbytes >= needed:
        return
    limit = " within your quota" if room.within_quota else ""
    raise Refused(
        protocol.NO_SPACE,
        f"{what} needs {_megabytes(needed)} in {folder}, and there is room for {_megabytes(room.nbytes)}"
        f"{limit}; make room there, or set 'root_dir' in the connection to a folder on another disk",
    )


def room_for(folder: str, needed: int) -> Room:
    """Return ``needed`` if so many bytes fit into a folder, and else about how many do."""
    disk = os.statvfs(folder)
    # One of no size does not tell its size.
    most = min(needed, disk.f_bavail * disk.f_frsize) if disk.f_blocks else needed
    if most <= 0 or not (why := _obstacle(folder, most)):
        return Room(most)
    if why == errno.ENOSPC and most < needed:
        # The disk says itself what is free, and some (xfs) take a moment to let go of what was set aside in vain.
        return Room(most)
    # No call tells the size of a quota on every file system.
    fits, too_much = 0, most
    while too_much - fits > max(1 << 16, most // 100):
        middle = (fits + too_much) // 2
        obstacle = _obstacle(folder, middle)
        if obstacle:
            too_much, why = middle, obstacle
        else:
            fits = middle
    return Room(fits, within_quota=why == errno.EDQUOT)


def _obstacle(folder: str, size: int) -> int:
    """Set bytes aside, let them go again, and return why that failed (fallocate(2)); 0 if not. It moves no data."""
    with tempfile.TemporaryFile(dir=folder, prefix=".room-") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if _is_memory(libc, file.fileno()):
            return 0
        try:
            fallocate = libc.fallocate
        except AttributeError:
            return 0
        if fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
            return 0
        # A file system that cannot set anything aside has to be believed, and one file need not hold all.
        why = ctypes.get_errno()
        return why if why in _NO_ROOM else 0


def _is_memory(libc: ctypes.CDLL, fd: int) -> bool:
    """Return whether setting bytes aside would take as much of the host's memory; what is free is exact there."""
    # struct statfs begins with the type.
    found = ctypes.create_string_buffer(512)
    return libc.fstatfs(fd, found) == 0 and ctypes.c_long.from_buffer(found).value == _TMPFS_MAGIC


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
