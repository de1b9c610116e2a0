"""Learn from the kernel that something has appeared in a folder (inotify(7)), where the kernel reports it."""

from __future__ import annotations

import ctypes
import os
import struct

_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_EVENT = struct.Struct("iIII")
_MOST_BYTES = 1 << 16


class Inotify:
    """
    Follows one folder for each of any number of keys.

    It only makes a look come sooner. With a kernel without inotify, exhausted limits, or a file system that is written
    to from another host, there are no reports, and the caller has to look without them.
    """

    def __init__(self) -> None:
        #: Readable when there is news; None when the kernel reports none.
        self.fd: int | None = None
        self._number_of: dict[int, int] = {}
        self._folder_of: dict[int, str] = {}
        self._keys_of: dict[int, set[int]] = {}
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            return
        if fd >= 0:
            self.fd = fd

    def close(self) -> None:
        """Stop following all folders."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def follow(self, key: int, folder: str) -> bool:
        """Follow a folder for a key, in place of its earlier one; return False when that is not possible."""
        if self._folder_of.get(key) == folder:
            return True
        self.leave(key)
        if self.fd is None:
            return False
        number = self._libc.inotify_add_watch(
            self.fd, os.fsencode(folder), ctypes.c_uint32(_IN_CREATE | _IN_MOVED_TO | _IN_ONLYDIR)
        )
        if number < 0:
            return False
        self._number_of[key] = number
        self._folder_of[key] = folder
        # A folder has only one number, even if it is followed for several keys.
        self._keys_of.setdefault(number, set()).add(key)
        return True

    def follows(self, key: int) -> bool:
        """Return whether the kernel reports news for a key."""
        return key in self._folder_of

    def leave(self, key: int) -> None:
        """Stop following a folder for a key."""
        if key not in self._folder_of:
            return
        del self._folder_of[key]
        number = self._number_of.pop(key)
        keys = self._keys_of[number]
        keys.discard(key)
        if not keys:
            del self._keys_of[number]
            self._libc.inotify_rm_watch(self.fd, number)

    def news(self) -> set[int]:
        """Return the keys in whose folders something has appeared, or whose folders are gone and no longer followed."""
        found: set[int] = set()
        while self.fd is not None:
            try:
                data = os.read(self.fd, _MOST_BYTES)
            except BlockingIOError:
                break
            while data:
                number, mask, _, length = _EVENT.unpack_from(data)
                data = data[_EVENT.size + length :]
                if mask & _IN_Q_OVERFLOW:
                    found.update(self._folder_of)
                found.update(self._keys_of.get(number, ()))
                if mask & _IN_IGNORED:
                    self._forget(number)
        return found

    def _forget(self, number: int) -> None:
        for key in self._keys_of.pop(number, ()):
            del self._folder_of[key], self._number_of[key]
