"""A connection's ``retention``: launches start a ``gpu-run gc`` in the background, at most once an hour."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from ..linux import detached, locks
from ..store import records
from ..store.directories import Root

if TYPE_CHECKING:
    from ..protocol.settings import Settings

_EVERY_S = 3600.0


def clear_if_due(root: Root, program: str, settings: Settings) -> None:
    """
    Start a ``gpu-run gc`` in the background, if the connection wants one and none was started for an hour.

    A failure here does not matter to the launch: the next launch tries again.
    """
    older_than = settings.get("retention_s")
    if older_than is None:
        return
    with contextlib.suppress(OSError):
        if not _claim(os.path.join(root.own, "gc.stamp")):
            return
        with records.log_file(os.path.join(root.own, "gc.log")) as log:
            log.truncate(0)
            command = detached.own_command(program, "gc", "--older-than", f"{older_than:f}", "--of-retention")
            detached.leave(detached.start_detached(command, out=log))


def _claim(stamp: str) -> bool:
    """Renew an old stamp, or make the first; of any number of callers, exactly one gets True."""
    try:
        if not _is_old(os.stat(stamp)):
            return False
    except FileNotFoundError:
        try:
            os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return True
        except FileExistsError:
            return False
    fd = locks.lock(stamp, create=False)
    if fd is None:
        return False
    try:
        if not _is_old(os.fstat(fd)):
            return False
        os.utime(fd)
        return True
    finally:
        os.close(fd)


def _is_old(found: os.stat_result) -> bool:
    # A stamp from the future is invalid: the clock was wrong.
    return not 0 <= time.time() - found.st_mtime < _EVERY_S
