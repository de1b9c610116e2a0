"""
A partly transferred file: hidden, and kept after an interruption, so that the next try resumes there.

Its name is derived from the final file and its version; its size says how much has arrived. The process that works on
it holds a lock, which the kernel releases however the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from types import TracebackType

from airflow_provider_gpu_cluster.exceptions import CollectError, NoSpaceError
from airflow_provider_gpu_cluster.gpu_run.protocol.files import PIECE
from airflow_provider_gpu_cluster.gpu_run.protocol.holes import extents, update_with_zeros

PREFIX = ".gpu-collect-"
SUFFIX = ".part"
# After this time, no try will resume it.
_FORGET_AFTER_S = 30 * 86400
_KEY_LENGTH = 16


def write_error(where: str, error: OSError) -> CollectError | NoSpaceError:
    """Return the error for something that cannot be written on the collecting side."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{where}: {error.strerror} on the side that collects; make room and collect again")
    return CollectError(f"{where} cannot be written: {error.strerror or error}")


class PartialFile:
    """
    One partial file, open and locked. If it is not published, it stays for the next try.

    :param name: readable name of the final file.
    :param kept: whether another try can find it; if not, it is removed at the end.
    """

    def __init__(self, name: str, path: str, fd: int, *, kept: bool) -> None:
        self.name = name
        self.path = path
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._kept = kept
        self._hash = hashlib.sha256()

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start_at(self, offset: int) -> None:
        """
        Resume at an offset within the existing bytes; later bytes are dropped.

        The existing bytes are read, so that the checksum covers the whole file.
        """
        self._hash = hashlib.sha256()
        with self._errors_told():
            os.ftruncate(self._fd, offset)
            at = 0
            while at < offset and (piece := os.pread(self._fd, PIECE, at)):
                self._hash.update(piece)
                at += len(piece)
            os.lseek(self._fd, offset, os.SEEK_SET)
        self.size = offset

    def write(self, piece: memoryview) -> None:
        """Add the next bytes."""
        with self._errors_told():
            written = 0
            while written < len(piece):
                count = os.write(self._fd, piece[written:])
                self._hash.update(piece[written : written + count])
                written += count
                self.size += count

    def write_zeros(self, count: int) -> None:
        """Add zeros, which take no space."""
        with self._errors_told():
            os.ftruncate(self._fd, self.size + count)
            os.lseek(self._fd, count, os.SEEK_CUR)
        self.size += count
        update_with_zeros(self._hash, count)

    def append(self, other: PartialFile) -> None:
        """Append all of another partial file, and discard that file."""
        with self._errors_told():
            for start, end, is_data in extents(other._fd, 0, other.size):
                if not is_data:
                    self.write_zeros(end - start)
                    continue
                for at in range(start, end, PIECE):
                    self.write(memoryview(os.pread(other._fd, min(PIECE, end - at), at)))
        other.discard()

    def is_whole(self, size: int, sha256: str) -> bool:
        """Return whether this file has the size and checksum of the file that was sent."""
        return self.size == size and self._hash.hexdigest() == sha256

    def make_executable(self) -> None:
        """Make it executable for everybody who may read it under the umask."""
        with self._errors_told():
            given = os.fstat(self._fd).st_mode & 0o777
            os.fchmod(self._fd, given | (given & 0o444) >> 2)

    def published(self) -> None:
        """Note that its file now has another name, or is no longer needed."""
        self._kept = False

    def discard(self) -> None:
        """Throw it away."""
        self._kept = False
        self.close()

    def close(self) -> None:
        """Close it; it stays where it is if it was not published and another try can find it."""
        if self._fd < 0:
            return
        try:
            if not self._kept or self.size == 0:
                self._unlink()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            # After its rename to the final name, this path may belong to another process's file.
            if os.path.samestat(os.stat(self.path), os.fstat(self._fd)):
                os.unlink(self.path)

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self.name, error) from error


class PartialFolder:
    """
    The partial files in a folder. It is listed once.

    :param path: the folder, which exists.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, set[str]] = {}
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                    self._note(entry)

    def size(self, key: str, stamp: str, part: int = 0) -> int:
        """Return how many bytes of a file of that version, or of a part of it, have arrived."""
        name = _name(key, stamp, part)
        if name not in self._found.get(_digest(key), ()):
            return 0
        try:
            return os.lstat(os.path.join(self._path, name)).st_size
        except OSError:
            return 0

    def open(self, name: str, key: str, stamp: str, part: int = 0) -> PartialFile:
        """
        Open a partial file of that version, and remove unused ones of other versions.

        If another process already works on it, open a new one, which no other try will find.

        :param name: readable name of the final file.
        :param key: key of the final file.
        :param part: number of a part that is transferred separately.
        :raises CollectError: the file cannot be written.
        """
        wanted = _name(key, stamp, part)
        found = self._found.setdefault(_digest(key), set())
        for other in [other for other in found if not other.startswith(_start_of_name(key, stamp))]:
            found.remove(other)
            self._remove_stale(other)
        found.add(wanted)
        path = os.path.join(self._path, wanted)
        try:
            if (fd := _open_locked(path)) is not None:
                return PartialFile(name, path, fd, kept=True)
            path = os.path.join(self._path, f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise write_error(path, error) from error
        return PartialFile(name, path, fd, kept=False)

    def remove(self, key: str) -> None:
        """Remove the partial files of a file that is no longer being transferred."""
        for name in self._found.pop(_digest(key), ()):
            self._remove_stale(name)

    def _note(self, entry: os.DirEntry[str]) -> None:
        key = entry.name[len(PREFIX) :].partition("-")[0]
        self._found.setdefault(key, set()).add(entry.name)
        with contextlib.suppress(OSError):
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - _FORGET_AFTER_S:
                self._remove_stale(entry.name)

    def _remove_stale(self, name: str) -> None:
        path = os.path.join(self._path, name)
        with contextlib.suppress(OSError):
            if os.path.lexists(path) and (fd := _open_locked(path)) is not None:
                os.unlink(path)
                os.close(fd)


def _open_locked(path: str) -> int | None:
    """Open or create a file, and lock it; None if another process holds it, or the folder does not support locks."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have given it its final name in the meantime.
            if os.path.samestat(os.lstat(path), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass
        except OSError:
            os.close(fd)
            return None
        os.close(fd)


def _name(key: str, stamp: str, part: int) -> str:
    return f"{_start_of_name(key, stamp)}{f'-{part}' if part else ''}{SUFFIX}"


def _start_of_name(key: str, stamp: str) -> str:
    return f"{PREFIX}{_digest(key)}-{_digest(stamp)}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:_KEY_LENGTH]
