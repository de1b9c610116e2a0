"""An input of a job that a new one replaces: files that both have in common are handed on, not made anew."""

from __future__ import annotations

import hashlib
import os
import stat

_PIECE = 1 << 20


class ReplacedFolder:
    """
    A folder that a job was given before, and may have changed since.

    A file is handed on as a hard link; its old name goes with the old folder. So the old folder is whole until the new
    one is in place, and afterwards the file has one name again.

    :param path: the folder, which need not exist.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_there = os.path.isdir(path) and not os.path.islink(path)
        self._folders = {"": self._is_there}

    def hand_on(self, path: str, mode: int, sha256: str, size: int, target: str) -> bool:
        """
        Give a file the name ``target`` as well, if it is the wanted one; the file is read to find out.

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
            # It does not exist, cannot be read, or the file system has no hard links.
            pass
        return False

    def _is_own(self, folder: str) -> bool:
        """Return whether a folder is a real folder, and not a link to somebody else's place."""
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
        # If the file had another name elsewhere, a change made there would change the new folder.
        if not stat.S_ISREG(found.st_mode) or found.st_size != size or found.st_nlink != 1:
            return False
        # The mode as this program made it, under its umask.
        if stat.S_IMODE(found.st_mode) not in (mode, mode & 0o700):
            return False
        digest = hashlib.sha256()
        while piece := os.read(fd, _PIECE):
            digest.update(piece)
        return digest.hexdigest() == sha256
    finally:
        os.close(fd)
