"""Whether there is room for what is about to arrive: on the disk, and within the user's quota."""

from __future__ import annotations

import ctypes
import errno
import shutil
import tempfile

from . import protocol
from .errors import Refused

_FALLOC_FL_KEEP_SIZE = 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_room(folder: str, needed: int, what: str) -> None:
    """
    Refuse what does not fit.

    :param what: what needs the room, for a person.
    :raises Refused: naming how much is needed and how much there is.
    """
    room = room_for(folder, needed)
    if room >= needed:
        return
    raise Refused(
        protocol.NO_SPACE,
        f"{what} needs {_megabytes(needed)} in {folder}, and there is room for {_megabytes(room)}"
        f"{_limit(folder, room)}; make room there, or set 'root_dir' in the connection to a folder on another disk",
    )


def room_for(folder: str, needed: int) -> int:
    """Return ``needed`` if so many bytes fit into a folder, and else about how many do."""
    free = shutil.disk_usage(folder).free
    if needed <= 0 or _fits(folder, min(needed, free)):
        return min(needed, free)
    # Only a quota is in the way, and no call tells its size on every file system.
    fits, too_much = 0, min(needed, free)
    while too_much - fits > max(1 << 16, too_much // 100):
        middle = (fits + too_much) // 2
        fits, too_much = (middle, too_much) if _fits(folder, middle) else (fits, middle)
    return fits


def _fits(folder: str, size: int) -> bool:
    """Set bytes aside, let them go again, and tell whether that worked (fallocate(2)); it moves no data."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".room-") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            length = ctypes.c_int64(size)
            if libc.fallocate(file.fileno(), _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), length) == 0:
                return True
            # A file system that cannot set anything aside has to be believed.
            return ctypes.get_errno() not in _NO_ROOM
    except AttributeError:
        return True


def _limit(folder: str, room: int) -> str:
    """Say what sets the limit, if that is not the disk."""
    return "" if room >= shutil.disk_usage(folder).free * 0.9 else " within your quota"


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
