"""Write files, and report failures of the disk clearly."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Iterator

from .. import protocol
from ..errors import Refused, traceback_text
from ..linux import processes, regular_files
from . import records

if TYPE_CHECKING:
    from ..protocol.replies import Fault

# Missing rights, and what lies where something else belongs.
_UNUSABLE = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
# Failures of a disk, of a network file system or of a host that has too much to do; another try may succeed.
_PASSING = (
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ETXTBSY,
)


def write_text(path: str, text: str) -> None:
    """Write or replace a small text file; a reader sees the old text or the new."""
    draft = f"{path}.{records.new_name()}.tmp"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        records.replace(draft, path)
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

    :raises Refused: the disk is full, the quota is used up, permission is missing, or the disk has a fault that passes.
    """
    try:
        yield
    except OSError as error:
        refusal = refusal_of(error, path)
        if refusal is None:
            raise
        raise refusal from error


def refusal_of(error: OSError, path: str) -> Refused | None:
    """
    Return the refusal that names a failure of the disk or the system; None for a failure of another kind.

    :param path: where it was, if the error does not say.
    """
    where = _text(error.filename) or path
    why = error.strerror or os.strerror(error.errno or 0)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(protocol.NO_SPACE, no_space(where if os.path.isabs(where) else path, error))
    if isinstance(error, regular_files.NotRegular):
        return Refused(protocol.ROOT_NOT_WRITABLE, f"{error}; a job may have put it there: remove it")
    if error.errno in _UNUSABLE:
        advice = "set 'root_dir' in the connection to a folder of your own on the cluster"
        if error.errno in (errno.EACCES, errno.EPERM):
            advice = f"make it accessible to {processes.user()}, or {advice}"
        return Refused(protocol.ROOT_NOT_WRITABLE, f"cannot use {where}: {why}; {advice}")
    if error.errno in _PASSING:
        return Refused(protocol.PASSING_FAULT, f"{where} cannot be used now: {why}")
    return None


def fault_of(error: Exception, what: str, path: str) -> Fault:
    """
    Return what to answer when something has failed.

    :param what: what has failed, for a person.
    :param path: where it was at work.
    """
    if isinstance(error, MemoryError):
        return {"code": protocol.PASSING_FAULT, "message": f"{what} was given no memory on {processes.hostname()}"}
    if isinstance(error, OSError):
        error = refusal_of(error, path) or error
    if isinstance(error, Refused):
        return {"code": error.code, "message": error.message}
    message = f"{what} failed on the cluster: {error!r}\n{traceback_text()}"
    return {"code": protocol.INTERNAL, "message": message}


def _text(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, (str, bytes)) else ""


def no_space(path: str, error: OSError) -> str:
    """Return a message that the disk or quota of ``path`` is used up, with the space that is left."""
    if error.errno == errno.EDQUOT:
        return f"the disk quota for {path} is used up; remove files there, or have the quota raised"
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    try:
        disk = os.statvfs(path)
        free = disk.f_bavail * disk.f_frsize
    except OSError:
        free = 0
    return f"no space left on the disk of {path}: {free / 1e6:.1f} MB free; remove files there"
