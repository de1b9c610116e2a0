"""Check whether there is room for what is about to arrive: on the disk, and within the user's quota."""

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
_SOME = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Room(NamedTuple):
    """
    How many bytes fit, up to the number that was asked for.

    :param within_quota: the limit is the user's quota, and not the disk.
    """

    nbytes: int
    within_quota: bool = False


def check_room(folder: str, needed: int, what: str) -> None:
    """
    Refuse what does not fit.

    :param what: what needs the room, for a person to read.
    :raises Refused: the message says how much is needed and how much there is.
    """
    room = room_for(folder, needed)
    if room.nbytes < needed:
        raise _no_room(folder, needed, room, what)


def check_room_later(folder: str, needed: int, what: str) -> None:
    """
    Refuse what would not fit if it came now, without reserving all of that for a moment, which others may need.

    :param what: what needs the room, for a person to read.
    :raises Refused: the message says how much is needed and how much there is.
    """
    disk = os.statvfs(folder)
    room = Room(min(needed, disk.f_bavail * disk.f_frsize) if disk.f_blocks else needed)
    if room.nbytes >= needed:
        # The disk knows nothing of a quota that is used up.
        some = min(needed, _SOME)
        room = room_for(folder, some)
        if room.nbytes >= some:
            return
    raise _no_room(folder, needed, room, what)


def _no_room(folder: str, needed: int, room: Room, what: str) -> Refused:
    limit = " within your quota" if room.within_quota else ""
    return Refused(
        protocol.NO_SPACE,
        f"{what} needs {_megabytes(needed)} in {folder}, and there is room for {_megabytes(room.nbytes)}"
        f"{limit}; make room there, or set 'root_dir' in the connection to a folder on another disk",
    )


def room_for(folder: str, needed: int) -> Room:
    """Return ``needed`` if that many bytes fit into a folder, else about how many do."""
    disk = os.statvfs(folder)
    # A disk that reports no size does not report free space either.
    most = min(needed, disk.f_bavail * disk.f_frsize) if disk.f_blocks else needed
    if most <= 0 or not (why := _obstacle(folder, most)):
        return Room(most)
    if why == errno.ENOSPC and most < needed:
        # The disk itself says how much is free, and some (xfs) release a failed reservation only after a moment.
        return Room(most)
    # No system call gives the quota on every file system, so search for it.
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
    """Reserve bytes, release them, and return the errno if that failed (fallocate(2)), else 0. It writes no data."""
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
        # If a file system cannot reserve anything, trust what it says; and one file need not hold everything.
        why = ctypes.get_errno()
        return why if why in _NO_ROOM else 0


def _is_memory(libc: ctypes.CDLL, fd: int) -> bool:
    """Return whether reserving bytes would use up the host's memory; free space is exact there anyway."""
    # struct statfs begins with the file system's type.
    found = ctypes.create_string_buffer(512)
    return libc.fstatfs(fd, found) == 0 and ctypes.c_long.from_buffer(found).value == _TMPFS_MAGIC


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
