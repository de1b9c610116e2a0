"""
A file that is on its way: hidden, and kept when the way breaks off, so that the next try goes on from there.

Its name is made of what it will be and of the version it is of; the size of the file is how far it has come. Whoever
works on it holds a lock, which the kernel gives back however the holder ends.
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
# Nobody comes back for it any more.
_FORGET_AFTER_S = 30 * 86400
_KEY_LENGTH = 16


def write_error(where: str, error: OSError) -> CollectError | NoSpaceError:
    """Return the error for something that cannot be written on the side that collects."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{where}: {error.strerror} on the side that collects; make room and collect again")
    return CollectError(f"{where} cannot be written: {error.strerror or error}")


class PartialFile:
    """
    One file on its way, open and locked. What is not published stays for the next try.

    :param name: what it will be, for a person.
    :param kept: whether another try can find it; otherwise it is removed at the end.
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
        Go on from an offset up to which there is something already; the rest is dropped.

        What is there is read for the checksum, which so covers the whole file.
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
        """Add all of another one, which is then of no use any more."""
        with self._errors_told():
            for start, end, is_data in extents(other._fd, 0, other.size):
                if not is_data:
                    self.write_zeros(end - start)
                    continue
                for at in range(start, end, PIECE):
                    self.write(memoryview(os.pread(other._fd, min(PIECE, end - at), at)))
        other.discard()

    def is_whole(self, size: int, sha256: str) -> bool:
        """Compare what is there with what was sent."""
        return self.size == size and self._hash.hexdigest() == sha256

    def make_executable(self) -> None:
        """Give the right to execute it to whom the umask left the right to read it."""
        with self._errors_told():
            given = os.fstat(self._fd).st_mode & 0o777
            os.fchmod(self._fd, given | (given & 0o444) >> 2)

    def published(self) -> None:
        """Note that its file has another name now, or is not needed any more."""
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
            # Renamed to its final name it is not there any more, and another's may be.
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
        """Return how far a file of that version has come, or another part of it."""
        name = _name(key, stamp, part)
        if name not in self._found.get(_digest(key), ()):
            return 0
        try:
            return os.lstat(os.path.join(self._path, name)).st_size
        except OSError:
            return 0

    def open(self, name: str, key: str, stamp: str, part: int = 0) -> PartialFile:
        """
        Open a file of that version, and remove those of others that nobody works on.

        If somebody works on it already, what is opened is another one that no try will find.

        :param name: what it will be, for a person.
        :param key: what it will be, for a program.
        :param part: number of a part that comes by itself.
        :raises CollectError: it cannot be written.
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
        """Remove what is left of a file that is not on its way any more."""
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
    """Open a file, made if there is none, and lock it; None when somebody else has it, or locks are unknown there."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it may have given it its final name in the meantime.
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
