"""Write files, and report failures of the disk clearly."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Iterator

from .. import protocol
from ..errors import Refused
from . import records


def write_text(path: str, text: str) -> None:
    """Write or replace a small text file; a reader sees the old text or the new."""
    draft = f"{path}.{records.new_name()}.tmp"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def remove_tree(path: str) -> None:
    """Remove a folder and its contents as far as possible."""
    # Imported late: every request starts a process, and shutil imports all kinds of archive modules.
    import shutil

    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """
    Turn a failure to write under ``path`` into the refusal a user can act on.

    :raises Refused: the disk is full, the quota is used up, or permission is missing.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused(protocol.NO_SPACE, no_space(path, error)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            where = error.filename or path
            raise Refused(
                protocol.ROOT_NOT_WRITABLE,
                f"cannot write {where}: {os.strerror(error.errno)}; set 'root_dir' in the connection to a folder"
                " of your own on the cluster",
            ) from error
        raise


def no_space(path: str, error: OSError) -> str:
    """Return a message that the disk or quota of ``path`` is used up, with the space that is left."""
    if error.errno == errno.EDQUOT:
        return f"the disk quota for {path} is used up"
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    try:
        disk = os.statvfs(path)
        free = disk.f_bavail * disk.f_frsize
    except OSError:
        free = 0
    return f"no space left on the disk of {path}: {free / 1e6:.1f} MB free"
