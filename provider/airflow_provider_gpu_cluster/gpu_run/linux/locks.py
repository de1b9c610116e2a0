"""Files in a folder that is writable for all, which every user of the host reads and locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Iterator


@contextlib.contextmanager
def _for_everyone() -> Iterator[None]:
    """Have what is made here open to others from its first moment, whatever this user's umask."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def make_folder(path: str) -> None:
    """Make a folder in which everybody can make files and remove their own; one that is there is left as it is."""
    with contextlib.suppress(FileExistsError), _for_everyone():
        os.mkdir(path, 0o1777)


def lock(path: str, *, create: bool = True) -> int | None:
    """
    Open and lock a file; None when somebody else has locked it.

    The lock is the open file's (flock(2)): it passes to processes that inherit the file, and the kernel releases it
    when the last of them closes it or dies.

    :param create: make the file if there is none.
    :raises FileNotFoundError: there is none and it is not to be made.
    """
    while True:
        fd = _open(path, create)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if is_current(fd, path):
            return fd
        # Somebody removed the file between the two steps: this lock would be one that nobody else sees.
        os.close(fd)


def is_current(fd: int, path: str) -> bool:
    """Tell whether ``path`` still is the file that was opened as ``fd``."""
    try:
        there, mine = os.stat(path, follow_symlinks=False), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def lock_owner(path: str) -> int | None:
    """Return the process that has taken the lock of a file; None when the kernel does not tell."""
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


def _open(path: str, create: bool) -> int:
    """
    Open a file for reading and writing.

    First without O_CREAT: with ``fs.protected_regular`` the kernel refuses O_CREAT on other users' files in a folder
    that is writable for all.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            if not create:
                raise
        with contextlib.suppress(FileExistsError), _for_everyone():
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
