"""
Open files in places where a job, or another user, may have put something else: a pipe, a device, a link, a folder.

Opening a pipe waits for its other end, and reading from a device need never end. So nothing here is opened before it is
known to be a regular file, nothing waits, and every read has a bound.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_OPTIONS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegular(OSError):
    """There is something else in the place of a file; ``strerror`` says what."""

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


def open_to_read(path: str, *, follow: bool = False) -> int:
    """
    Open a regular file for reading, and return its descriptor.

    :param follow: a link to a regular file will do as well.
    :raises NotRegular: it is something else.
    :raises OSError: it does not exist, or cannot be opened.
    """
    # Looked at first, since even opening a pipe or a device can have effects.
    check(os.stat(path, follow_symlinks=follow), path)
    return _checked(_open(path, os.O_RDONLY | _OPTIONS | (0 if follow else os.O_NOFOLLOW)), path)


def open_to_append(path: str) -> int:
    """
    Open a regular file for appending, or make it, and return its descriptor.

    :raises NotRegular: something else is in its place.
    """
    with contextlib.suppress(FileNotFoundError):
        check(os.lstat(path), path)
    fd = _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | _OPTIONS)
    _checked(fd, path)
    # A program that inherits the file might take the flag for that of a pipe.
    os.set_blocking(fd, True)
    return fd


def read(path: str, most_bytes: int, *, follow: bool = False) -> bytes:
    """
    Return the content of a regular file.

    :raises NotRegular: it is something else, or larger than ``most_bytes``.
    """
    fd = open_to_read(path, follow=follow)
    with os.fdopen(fd, "rb") as file:
        data = file.read(min(most_bytes, os.fstat(fd).st_size) + 1)
    if len(data) > most_bytes:
        raise NotRegular(errno.EFBIG, f"has more than {most_bytes} bytes", path)
    return data


def read_end(path: str, size: int, *, follow: bool = False, start: int = 0) -> bytes:
    """
    Return the last bytes of a regular file; see :func:`open_to_read`.

    :param start: nothing before this place, unless the file is shorter by now.
    """
    fd = open_to_read(path, follow=follow)
    try:
        end = os.fstat(fd).st_size
        first = start if 0 <= start <= end else 0
        return os.pread(fd, size, max(first, end - size))
    finally:
        os.close(fd)


def check(found: os.stat_result, path: str) -> None:
    """
    Check that a path has a regular file.

    :param found: what stat(2) says about it.
    :raises NotRegular: it has something else.
    """
    if not stat.S_ISREG(found.st_mode):
        kind = next((word for is_kind, word in _KINDS if is_kind(found.st_mode)), "something else")
        raise NotRegular(errno.EINVAL, f"is {kind}, and not a file", path)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        # It was replaced a moment ago: by a link, a pipe that nobody reads, a socket, or a folder.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotRegular(errno.EINVAL, "is not a file", path) from error
        raise


def _checked(fd: int, path: str) -> int:
    try:
        check(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd
