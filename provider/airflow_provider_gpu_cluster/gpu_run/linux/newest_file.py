"""The newest file in a folder and in those below it."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

# A folder with more than this is not looked through to its end.
_MOST_FILES = 100_000


class NewestFile(NamedTuple):
    """A file, and when it was last written, in nanoseconds since the epoch."""

    path: str
    modified_ns: int


def newest_file(folder: str) -> NewestFile | None:
    """Return the newest file below a folder, which may be a link; None when there is none that can be seen."""
    newest: NewestFile | None = None
    left = _MOST_FILES
    for path, _, names in os.walk(folder):
        for name in names:
            left -= 1
            try:
                found = os.lstat(os.path.join(path, name))
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and (newest is None or found.st_mtime_ns > newest.modified_ns):
                newest = NewestFile(os.path.join(path, name), found.st_mtime_ns)
        if left < 0:
            break
    return newest
