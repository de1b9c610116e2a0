"""Directories to delete: a rename moves each here first, so that no process ever finds one half deleted."""

from __future__ import annotations

import errno
import glob
import os
import stat
import uuid
from typing import Callable

# The unit of st_blocks, which gives a file's size on the disk.
_BLOCK = 512

Failed = Callable[[str, OSError], None]


class Trash:
    """
    A folder of things to delete, on the file system that they come from.

    :param path: of the folder, which is made when it is needed.
    :param failed: called with a path that cannot be deleted, and why.
    """

    def __init__(self, path: str, failed: Failed) -> None:
        self.path = path
        self._failed = failed

    def take(self, path: str) -> str:
        """
        Move something here in one step, and return its new path.

        :raises OSError: it cannot be moved.
        """
        place = os.path.join(self.path, f"{uuid.uuid4().hex}-{os.path.basename(path)}")
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full disk has no room for a new folder, so move what is to be deleted beside this one.
            place = f"{self.path}-{uuid.uuid4().hex}"
        try:
            os.rename(path, place)
        except PermissionError:
            # Moving a folder needs write permission on the folder itself, as its entry for the parent changes.
            _open_up(path)
            os.rename(path, place)
        return place

    def empty(self) -> int:
        """
        Delete everything here, including what an earlier call could not finish; return how many bytes this has freed.

        Links are never followed, and a folder whose mode forbids emptying it is opened up. Each folder is moved to the
        top before it is emptied, so that neither its depth nor the length of its path matters.
        """
        freed = 0
        for path in [self.path, *glob.glob(f"{glob.escape(self.path)}-{'?' * 32}")]:
            try:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    os.unlink(path)
                    continue
                _open_up(path)
                top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    freed += self._empty(path, top)
                finally:
                    os.close(top)
                if path != self.path:
                    os.rmdir(path)
            except OSError as error:
                self._fail(path, error)
        return freed

    def _empty(self, path: str, top: int) -> int:
        freed = 0
        origins = {name: os.path.join(path, name) for name in os.listdir(top)}
        front = list(origins)
        while front:
            name = front.pop()
            origin = origins.pop(name)
            try:
                size = _unlink(name, top)
                if size is not None:
                    freed += size
                    continue
                folder = _open_folder(name, top)
            except OSError as error:
                self._fail(origin, error)
                continue
            try:
                # Files first: that frees space, which the top may need to grow.
                below, removed = self._unlink_all(folder, origin)
                freed += removed
                for entry in below:
                    moved = self._move_up(entry, folder, top, origin)
                    if moved is not None:
                        origins[moved] = os.path.join(origin, entry)
                        front.append(moved)
                is_empty = not os.listdir(folder)
            except OSError as error:
                is_empty = False
                self._fail(origin, error)
            finally:
                os.close(folder)
            if is_empty:
                try:
                    os.rmdir(name, dir_fd=top)
                except OSError as error:
                    self._fail(origin, error)
        return freed

    def _unlink_all(self, folder: int, origin: str) -> tuple[list[str], int]:
        """Delete everything in a folder except folders; return those, and how many bytes this has freed."""
        below = []
        freed = 0
        for entry in os.listdir(folder):
            try:
                size = _unlink(entry, folder)
                if size is None:
                    below.append(entry)
                else:
                    freed += size
            except OSError as error:
                self._fail(os.path.join(origin, entry), error)
        return below, freed

    def _move_up(self, name: str, folder: int, top: int, origin: str) -> str | None:
        try:
            return _move_up(name, folder, top)
        except OSError as error:
            self._fail(os.path.join(origin, name), error)
            return None

    def _fail(self, path: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self._failed(path, error)


def _unlink(name: str, folder: int) -> int | None:
    """Delete a file, and return how many bytes this has freed; return None for a folder."""
    found = os.lstat(name, dir_fd=folder)
    if stat.S_ISDIR(found.st_mode):
        return None
    os.unlink(name, dir_fd=folder)
    return size_of(found)


def _move_up(name: str, folder: int, top: int) -> str | None:
    """Move a folder to the top under a new name, and return the name; delete an empty one, and return None."""
    try:
        # This works for an empty folder, whoever owns it.
        os.rmdir(name, dir_fd=folder)
        return None
    except OSError:
        pass
    moved = uuid.uuid4().hex
    try:
        os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=top)
    except PermissionError:
        _open_up(name, folder)
        os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=top)
    return moved


def _open_folder(name: str, parent: int) -> int:
    _open_up(name, parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _open_up(name: str, parent: int | None = None) -> None:
    """Give this user all rights in their folder; through a file descriptor, as a link could replace the folder."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        found = os.fstat(fd)
        if found.st_uid == os.geteuid() and found.st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def size_of(found: os.stat_result) -> int:
    """Return how many bytes deleting a file frees: none while it has another name."""
    return found.st_blocks * _BLOCK if found.st_nlink == 1 else 0


def measure(path: str) -> int:
    """Return how many bytes deleting something would free, as far as it can be read."""
    size = 0
    front = [path]
    while front:
        where = front.pop()
        try:
            found = os.lstat(where)
            if stat.S_ISDIR(found.st_mode):
                front += [os.path.join(where, name) for name in os.listdir(where)]
            else:
                size += size_of(found)
        except OSError:
            continue
    return size
