"""Which parts of a file hold data, and which are holes that read as zeros (lseek(2), SEEK_DATA)."""

from __future__ import annotations

import errno
import os
from typing import Any, Iterator

from .files import PIECE

_ZEROS = bytes(PIECE)


def extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """
    Yield the parts of a range in order: where each begins and ends, and whether it holds data.

    On a file system without holes, everything is data.
    """
    at = start
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            # ENXIO: there is no data after this place. Another error: the file system does not know holes.
            data, hole = (end if error.errno == errno.ENXIO else at), end
        data, hole = min(data, end), min(hole, end)
        if at < data:
            yield at, data, False
        if data < hole:
            yield data, hole, True
        at = hole


def update_with_zeros(digest: Any, count: int) -> None:
    """Add zeros to a checksum."""
    for start in range(0, count, PIECE):
        digest.update(_ZEROS if count - start >= PIECE else _ZEROS[: count - start])
