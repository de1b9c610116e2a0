"""Locks among the processes of one user; those of all users of a host are in :mod:`.linux.locks`."""

from __future__ import annotations

import fcntl
import os


def try_lock(path: str) -> int | None:
    """
    Open and lock a file, made if there is none; None when somebody else has locked it.

    The lock is the open file's (flock(2)): it passes to processes that inherit the file, and the kernel releases it
    when the last of them closes it or dies. The file stays where it is, so that all lock the same one.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError:
        os.close(fd)
        return None
