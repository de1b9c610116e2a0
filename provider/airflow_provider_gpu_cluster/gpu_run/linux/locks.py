"""
Locks on files (flock(2)), between processes of one user or of all users of a host.

A lock belongs to the open file: it passes to processes that inherit the file, and the kernel releases it when the last
of them closes the file or dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator

from . import regular_files

_PAUSE_S = 0.005


@contextlib.contextmanager
def _for_everyone() -> Iterator[None]:
    """Make new files accessible to other users from the start, whatever this user's umask."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def make_shared_folder(path: str) -> None:
    """Make a folder in which everybody can make files and remove their own; leave an existing one unchanged."""
    with contextlib.suppress(FileExistsError), _for_everyone():
        os.mkdir(path, 0o1777)


def lock(path: str, *, timeout_s: float | None = 0.0, create: bool = True, shared: bool = False) -> int | None:
    """
    Open and lock a file; return None when another process has locked it.

    :param timeout_s: how long to wait for the lock, in seconds; None waits without a limit.
    :param create: make the file if there is none.
    :param shared: the file is for all users of the host, and is made so that they can lock it.
    :raises FileNotFoundError: there is none, and ``create`` is False.
    :raises NotRegular: something else is in its place.
    """
    while True:
        fd = _open(path, create, shared)
        try:
            # Another user may have put a pipe there, and reading what a lock's holder has written would wait for it.
            regular_files.check(os.fstat(fd), path)
            if not lock_file(fd, timeout_s=timeout_s):
                os.close(fd)
                return None
            if is_current(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # The file was removed between the two steps, so no other process would see this lock.
        os.close(fd)


def lock_file(fd: int, *, timeout_s: float | None = 0.0, exclusive: bool = True) -> bool:
    """
    Lock an open file; return whether that was possible in time.

    :param timeout_s: how long to wait for the lock, in seconds; None waits without a limit.
    :param exclusive: exclude all other locks; a shared lock excludes only exclusive ones.
    """
    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    if timeout_s is None:
        fcntl.flock(fd, how)
        return True
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(_PAUSE_S)


def is_locked(path: str) -> bool:
    """Return whether a process has locked a file; False if the file does not exist."""
    try:
        fd = regular_files.open_to_read(path)
    except FileNotFoundError:
        return False
    try:
        return not lock_file(fd)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def is_current(fd: int, path: str) -> bool:
    """Return whether ``path`` is still the file that was opened as ``fd``."""
    try:
        there, mine = os.stat(path, follow_symlinks=False), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def lock_owner(path: str) -> int | None:
    """Return the process that has locked a file; None when the kernel does not say."""
    try:
        number = str(os.stat(path).st_ino)
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                words = line.split()
                if words[1] == "FLOCK" and words[5].rsplit(":", 1)[-1] == number:
                    return int(words[4])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _open(path: str, create: bool, shared: bool) -> int:
    """
    Open a file for reading and writing.

    It tries without O_CREAT first: with ``fs.protected_regular`` the kernel refuses O_CREAT on other users' files in a
    folder that is writable for all.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            if not create:
                raise
        with contextlib.suppress(FileExistsError), _for_everyone() if shared else contextlib.nullcontext():
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666 if shared else 0o600)
