"""
When somebody last asked about a job: the time of the last change of a file in its directory.

A network file system sets that time by the clock of its server. So it is compared with its own earlier value, or with
the time of another file of the same disk, but never with the clock of a host.
"""

from __future__ import annotations

import contextlib
import os
import time

from ..linux import regular_files
from ..linux.disk_clock import time_of_disk

# A question that follows another so soon need not be noted.
_RECENT_S = 1.0


def note_asked(job: str) -> None:
    """
    Note that somebody asks about a job now. Where that is impossible, nobody is kept from the answer.

    :param job: path of its directory.
    """
    note_mark(_path(job))


def note_mark(path: str) -> None:
    """Let a file have changed now, as far as that is possible."""
    with contextlib.suppress(OSError):
        try:
            if not 0 <= time.time() - os.lstat(path).st_mtime < _RECENT_S:
                os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            # The folder is not made: the job may have been deleted.
            os.close(regular_files.open_to_append(path))


def asked_at(job: str) -> float | None:
    """
    Return when somebody last asked about a job, by the clock of its disk; None when that was never noted.

    :param job: path of its directory.
    :raises OSError: it cannot be looked at now.
    """
    return marked_at(_path(job))


def marked_at(path: str) -> float | None:
    """Return when a file last changed, by the clock of its disk; None when it does not exist."""
    with contextlib.suppress(OSError):
        # An open file is asked for at the server of a network file system; a look alone may be answered from memory.
        os.close(regular_files.open_to_read(path))
    try:
        return os.lstat(path).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None


def unasked_s(job: str, folder: str) -> float | None:
    """
    Return for how long nobody has asked about a job, in seconds; None when that cannot be told.

    :param job: path of its directory.
    :param folder: one on the same disk, in which the clock of the disk is read.
    """
    return unmarked_s(_path(job), folder)


def unmarked_s(path: str, folder: str) -> float | None:
    """Return for how long a file has not changed, in seconds; None when that cannot be told."""
    try:
        at = marked_at(path)
        return None if at is None else max(0.0, time_of_disk(folder) - at)
    except OSError:
        return None


def _path(job: str) -> str:
    return os.path.join(job, ".job", "asked")
