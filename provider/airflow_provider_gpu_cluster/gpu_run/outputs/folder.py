"""A job's outputs for a transfer: which exist, and which of them may be read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Iterator, Protocol

from .. import protocol
from ..errors import Refused
from ..linux import regular_files
from ..linux.paths import is_really_within
from ..protocol import lines
from ..protocol.files import CHANGED, SMALL
from ..store import markers
from ..store.directories import JobDirectory, Root
from ..store.next_attempt import is_followed

if TYPE_CHECKING:
    from ..protocol.outputs import OutputEntry

# The unit of ``st_blocks`` on every file system.
_BLOCK = 512


class Unsendable(Exception):
    """An output cannot be sent; the message says why, and follows the output's name."""


class Outputs(Protocol):
    """Outputs that can be listed and read."""

    def entries(self) -> list[OutputEntry]:
        """List everything except folders."""
        ...

    def open(self, name: str) -> tuple[int, os.stat_result]:
        """Open a file that was listed before; the caller closes it."""
        ...


class OutputsFolder:
    """
    The outputs of a job.

    :param folder: another folder of it instead.
    :raises Refused: there is no such job.
    """

    def __init__(self, root: Root, job_id: str, folder: str = "outputs") -> None:
        job = root.job(job_id)
        if not job.exists():
            raise Refused(protocol.NO_SUCH_JOB, f"there is no job {job_id} under {root.path} on this cluster")
        self.path = job.at(folder)
        self._inside = os.path.realpath(self.path) + os.sep

    def entries(self) -> list[OutputEntry]:
        """List everything except folders."""
        unreadable: list[str] = []
        # A folder that cannot be listed must not look like an empty one.
        entries = [describe(self.path, name)[0] for name in _walk(self.path, unreadable)]
        entries += [{"path": name, "kind": "unreadable", "size": 0, "mode": 0} for name in unreadable]
        return entries

    def open(self, name: str) -> tuple[int, os.stat_result]:
        """
        Open a file that was listed before; the caller closes it.

        :return: its descriptor and status.
        :raises Unsendable: it has been replaced by something else, or cannot be read.
        """
        try:
            # It may have become something else since it was listed. A link may lead to another output.
            fd = regular_files.open_to_read(os.path.join(self.path, lines.safe_path(name)), follow=True)
        except (FileNotFoundError, NotADirectoryError, regular_files.NotRegular) as error:
            raise Unsendable(CHANGED) from error
        except PermissionError as error:
            raise Unsendable("cannot be read by the user that runs the job") from error
        except OSError as error:
            raise Unsendable(f"could not be read: {error.strerror or error}") from error
        # The check of its place uses the open file, as a link can replace the path at any moment.
        if os.readlink(f"/proc/self/fd/{fd}").startswith(self._inside):
            return fd, os.fstat(fd)
        os.close(fd)
        raise Unsendable(CHANGED)


def mark_end(job: JobDirectory) -> None:
    """Write the markers of a job that has ended, if they are missing: the end is recorded a moment before them."""
    attempts = job.attempts()
    ended = None
    # A job can spoil its record; that does not concern its outputs.
    with contextlib.suppress(ValueError):
        ended = attempts[-1].ended() if attempts else None
    outputs = job.at("outputs")
    if ended is not None and not is_followed(ended) and not markers.is_marked(outputs):
        markers.mark(outputs, ended)


def _walk(folder: str, unreadable: list[str]) -> Iterator[str]:
    """
    Yield the contents of a folder; a link to a folder counts as a link, unless that folder is walked anyway.

    :param unreadable: receives the folders that cannot be listed.
    """

    def note(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            unreadable.append(os.path.relpath(error.filename, folder))

    for where, folders, files in os.walk(folder, onerror=note):
        for name in sorted(files) + sorted(folders):
            path = os.path.join(where, name)
            is_link = os.path.islink(path)
            if name in folders and (not is_link or is_really_within(path, folder)):
                continue
            yield os.path.relpath(path, folder)


def describe(folder: str, name: str) -> tuple[OutputEntry, os.stat_result | None]:
    """Return what is to be said of something in the folder that is no folder, and its status if it can be read."""
    path = os.path.join(folder, name)
    entry: OutputEntry = {"path": name, "kind": "file", "size": 0, "mode": 0o644}
    if os.path.islink(path):
        entry["target"] = os.readlink(path)
        if not is_really_within(path, folder):
            return {**entry, "kind": "outside"}, None
    try:
        found = os.stat(path)
    except OSError:
        return {**entry, "kind": "broken"}, None
    if not stat.S_ISREG(found.st_mode):
        return {**entry, "kind": "special"}, None
    if not os.access(path, os.R_OK):
        return {**entry, "kind": "unreadable"}, None
    entry["size"], entry["mode"] = found.st_size, mode_of(found)
    if found.st_size >= SMALL:
        # A file with holes needs less than its size.
        entry["stamp"], entry["needs"] = stamp_of(found), min(found.st_size, found.st_blocks * _BLOCK)
    return entry, found


def stamp_of(found: os.stat_result) -> str:
    """Return a stamp that changes when a file changes or is replaced."""
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def mode_of(found: os.stat_result) -> int:
    """Return the permission bits to keep."""
    return 0o755 if found.st_mode & 0o100 else 0o644
