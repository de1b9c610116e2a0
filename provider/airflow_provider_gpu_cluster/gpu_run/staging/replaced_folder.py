"""An input of a job that another one takes the place of: what both have in common is handed on, not made anew."""

from __future__ import annotations

import hashlib
import os
import stat

_PIECE = 1 << 20


class ReplacedFolder:
    """
    A folder that a job was given before, and may have changed since.

    A file is handed on as a hard link, and its old name goes with the old folder. So until the new folder is in place,
    the old one is whole, and afterwards the file has one name again.

    :param path: where it is; there need not be anything.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_there = os.path.isdir(path) and not os.path.islink(path)
        self._folders = {"": self._is_there}

    def hand_on(self, path: str, mode: int, sha256: str, size: int, target: str) -> bool:
        """
        Give a file the name ``target`` as well, if it is what is wanted; it is read for that.

        :param path: of the file, in this folder.
        :return: False when there is no such file, or it cannot have a second name.
        """
        if not self._is_there or not self._is_own(os.path.dirname(path)):
            return False
        try:
            if _is(os.path.join(self._path, path), mode, sha256, size):
                os.link(os.path.join(self._path, path), target)
                return True
        except OSError:
            # It is not there, cannot be read, or the file system has no second names.
            pass
        return False

    def _is_own(self, folder: str) -> bool:
        """Return whether a folder is one, and not a link to a place that is somebody else's."""
        known = self._folders.get(folder)
        if known is None:
            path = os.path.join(self._path, folder)
            known = self._is_own(os.path.dirname(folder)) and os.path.isdir(path) and not os.path.islink(path)
            self._folders[folder] = known
        return known


def _is(path: str, mode: int, sha256: str, size: int) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        # With a second name somewhere, what is done to it there would be done to the new folder.
        if not stat.S_ISREG(found.st_mode) or found.st_size != size or found.st_nlink != 1:
            return False
        # As it was made, with this program's umask.
        if stat.S_IMODE(found.st_mode) not in (mode, mode & 0o700):
            return False
        digest = hashlib.sha256()
        while piece := os.read(fd, _PIECE):
            digest.update(piece)
        return digest.hexdigest() == sha256
    finally:
        os.close(fd)
