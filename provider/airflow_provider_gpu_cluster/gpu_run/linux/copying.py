"""Copy files in the kernel, cheaply where possible."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile

from ..protocol.holes import extents
from . import regular_files

_PIECE = 1 << 20
# ioctl_ficlonerange(2): _IOW(0x94, 9, int)
_FICLONE = 0x40049409

_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


def copy_file(source: str, target: str) -> None:
    """
    Make a new file with the content, the mode and the times of another.

    :raises NotRegular: that is not a file.
    """
    source_fd = regular_files.open_to_read(source)
    try:
        found = os.fstat(source_fd)
        target_fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy_content(source_fd, target_fd, found.st_size)
            os.fchmod(target_fd, stat.S_IMODE(found.st_mode))
            os.utime(target_fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def copy_content(source: int, target: int, size: int) -> None:
    if clone(source, target):
        return
    os.ftruncate(target, size)
    for start, end, is_data in extents(source, 0, size):
        if is_data:
            _copy_range(source, target, start, end)


def clone(source: int, target: int) -> bool:
    """Let a file share the blocks of another; return False if the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return True
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False


def shares_blocks(folder: str) -> bool:
    """Return whether files in a folder can be clones of each other."""
    with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
        source.write(b"x")
        source.flush()
        return clone(source.fileno(), target.fileno())


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    at = start
    try:
        while at < end:
            copied = os.copy_file_range(source, target, end - at, at, at)
            if not copied:
                # The source was truncated; its SHA-256 will show that.
                return
            at += copied
        return
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    os.lseek(target, at, os.SEEK_SET)
    while at < end:
        piece = os.pread(source, min(_PIECE, end - at), at)
        if not piece:
            return
        write_all(target, piece)
        at += len(piece)


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes, however few the system takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
