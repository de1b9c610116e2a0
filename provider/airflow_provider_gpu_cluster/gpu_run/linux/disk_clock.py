"""The clock by which a file system notes when files change; on a network file system that is its server's."""

from __future__ import annotations

import os


def time_of_disk(folder: str) -> float:
    """
    Return the present time by that clock, in seconds since the epoch.

    :param folder: a folder on that disk, in which a file is made and removed.
    :raises OSError: that is not possible now.
    """
    path = os.path.join(folder, f".{os.urandom(8).hex()}.probe")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
        os.unlink(path)
