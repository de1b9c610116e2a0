"""
A content that is arriving from the worker, in any order, over several channels, and in several tries.

``incoming/<key>``          its bytes, at their places
``incoming/<key>.ranges``   the ranges that have arrived: a line for each, added when its bytes are written
``incoming/<key>.lock``     locked by the process that asks the worker for it, so that no other process does

A process that writes into it holds a shared lock on the bytes; the process that gives it its final name holds an
exclusive one. So once it has its name, it is never written to. Before that, its whole SHA-256 is computed here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

from ..linux import locks, regular_files
from .contents import Contents
from .ranges import Range, merged, missing, total

PIECE = 1 << 20
# A range is noted at the latest when it has become this long.
_NOTE_BYTES = 1 << 22
# A line for each of them, of a content of many terabytes.
_MOST_RANGES_BYTES = 1 << 27
# A process whose connection has died may hold its lock on the bytes for this long at most.
WRITERS_GONE_S = 150.0


class Damaged(Exception):
    """The bytes that arrived are not the content they should be; none of them are kept."""


class Busy(Exception):
    """Another process is writing into it and does not stop."""


class Incoming:
    """
    A content that is not here yet.

    :param size: in bytes.
    """

    def __init__(self, contents: Contents, key: str, size: int) -> None:
        self.key = key
        self.size = size
        self.path = os.path.join(contents.incoming, key)
        self._contents = contents
        self._lock: int | None = None
        self._fd: int | None = None
        self._unnoted: Range = (0, 0)
        self._digest = hashlib.sha256()
        self._hashed = 0

    def take(self) -> bool:
        """Become the process that asks for it; False when another one is. Look again then: it may be here by now."""
        if self._lock is None:
            self._lock = locks.lock(self.path + ".lock")
        return self._lock is not None

    def begin(self) -> None:
        """Make the file in its full size, as a sparse file that takes up no space yet."""
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600), "rb+") as file:
            regular_files.check(os.fstat(file.fileno()), self.path)
            if os.fstat(file.fileno()).st_size != self.size:
                # It never had that size, or something has cut it: the ranges noted for it are wrong.
                self._forget_ranges()
                file.truncate(self.size)

    def release(self) -> None:
        """Leave the content, with the bytes that have arrived, to other processes."""
        try:
            self.rest()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def leave(self) -> None:
        """Leave it to other processes, if it is not done; remove it if no bytes have arrived."""
        if self._lock is None:
            return
        try:
            self.rest()
            if not self.arrived():
                self.discard()
        finally:
            self.release()

    # -- what has arrived

    def missing(self) -> list[Range]:
        """Return the ranges that have not arrived from any process."""
        self._note()
        return missing(self._noted(), self.size)

    def arrived(self) -> int:
        """Return how many bytes have arrived."""
        return total(merged(self._noted()))

    def _noted(self) -> list[Range]:
        ranges = []
        with contextlib.suppress(FileNotFoundError, regular_files.NotRegular):
            for line in regular_files.read(self.path + ".ranges", _MOST_RANGES_BYTES).splitlines(keepends=True):
                words = line.split()
                # A full disk cuts a line short, and the next line is joined to it. That gives three words, or a start
                # that is larger than the end. So a damaged line never counts bytes that are not there.
                if line.endswith(b"\n") and len(words) == 2 and words[0].isdigit() and words[1].isdigit():
                    ranges.append((int(words[0]), int(words[1])))
        return ranges

    def _forget_ranges(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path + ".ranges")

    # -- writing

    def write(self, at: int, data: bytes) -> None:
        """Put bytes at their place. They count once they are noted: from time to time, and by :meth:`rest`."""
        self._start_writing()
        assert self._fd is not None
        view = memoryview(data)
        place = at
        while view:
            written = os.pwrite(self._fd, view, place)
            place += written
            view = view[written:]
        self._add(at, place)
        if at == self._hashed:
            self._digest.update(data)
            self._hashed = place

    def skip(self, at: int, length: int) -> None:
        """Note zeros, which need not be written."""
        self._start_writing()
        self._add(at, at + length)

    def rest(self) -> None:
        """Note what has arrived, and close everything but the lock."""
        if self._fd is None:
            return
        try:
            self._check_stored(self._fd)
            self._note()
        finally:
            os.close(self._fd)
            self._fd = None

    def _check_stored(self, fd: int) -> None:
        """Let a network file system report, as it does on closing a file, whether it stored all it accepted."""
        try:
            os.close(os.dup(fd))
        except OSError:
            # Nobody knows which bytes were lost.
            self._unnoted = (0, 0)
            self._forget_ranges()
            raise

    def _add(self, start: int, end: int) -> None:
        if start != self._unnoted[1]:
            self._note()
            self._unnoted = (start, end)
        else:
            self._unnoted = (self._unnoted[0], end)
        if self._unnoted[1] - self._unnoted[0] >= _NOTE_BYTES:
            self._note()

    def _note(self) -> None:
        start, end = self._unnoted
        if end > start:
            self._unnoted = (end, end)
            assert self._fd is not None
            fd = regular_files.open_to_append(self.path + ".ranges")
            try:
                # If the bytes were thrown away, this note may belong to new bytes in their place. The check comes in
                # this order because a process that makes new bytes first removes the existing notes.
                if locks.is_current(self._fd, self.path):
                    os.write(fd, f"{start} {end}\n".encode("ascii"))
            finally:
                os.close(fd)

    def _start_writing(self) -> None:
        """
        Open the bytes.

        :raises FileNotFoundError: they have their final name already, or were thrown away.
        """
        if self._fd is not None:
            return
        fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        locks.lock_file(fd, timeout_s=None, exclusive=False)
        if not locks.is_current(fd, self.path):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "it has its final name", self.path)
        self._fd = fd

    # -- the end

    def publish(self) -> str:
        """
        Give it its final name, and return its SHA-256. Call it when nothing is missing.

        :raises Damaged: the bytes do not match the key.
        :raises Busy: another process goes on writing into it.
        """
        self._start_writing()
        assert self._fd is not None
        if not locks.lock_file(self._fd, timeout_s=WRITERS_GONE_S):
            raise Busy(self.key)
        self._check_stored(self._fd)
        while piece := os.pread(self._fd, PIECE, self._hashed):
            self._digest.update(piece)
            self._hashed += len(piece)
        sha256 = self._digest.hexdigest()
        if not self.key.startswith("tag-") and sha256 != self.key:
            self.discard()
            raise Damaged(self.key)
        os.utime(self._fd)
        self._contents.adopt(sha256, self.path)
        # Not earlier: while bytes are still arriving, another process may have to open the file for writing.
        os.fchmod(self._fd, 0o400)
        self._contents.tag(self.key, sha256)
        self.discard()
        return sha256

    def discard(self) -> None:
        """Remove all files under this key, the lock last: its next holder finds nothing, or the finished content."""
        self._unnoted = (0, 0)
        self._forget_ranges()
        for suffix in ("", ".lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + suffix)
        self.release()
