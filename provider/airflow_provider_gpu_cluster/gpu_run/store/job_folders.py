"""The jobs of this user under a root."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Iterator

from ..errors import Refused
from .directories import JobDirectory, Root


def jobs_of(root: Root) -> Iterator[JobDirectory]:
    """Yield the directories that are jobs of this user; other files there are left alone."""
    for name in sorted(os.listdir(root.path)):
        with contextlib.suppress(Refused, OSError):
            job = root.job(name)
            found = os.lstat(job.path)
            is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if is_own and stat.S_ISDIR(os.lstat(job.at(".job")).st_mode):
                yield job
