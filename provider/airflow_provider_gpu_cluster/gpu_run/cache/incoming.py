"""
One content on its way from the worker: it arrives in any order, over several channels, and in several tries.

``incoming/<key>``          its bytes, at their places
``incoming/<key>.ranges``   which of them have arrived: a line for each range, added when it is written
``incoming/<key>.lock``     locked by the process that asks the worker for it, so that nobody else does

Who writes into it holds a shared lock on the bytes, and who gives them their final name an exclusive one: what has its
name is never written to. Its SHA-256 is computed here before that, from all of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

from ..linux import locks
from .contents import Contents
from .ranges import Range, merged, missing, total

PIECE = 1 << 20
# A range is written down at the latest when it has become that long.
_NOTE_BYTES = 1 << 22
# Somebody whose connection has died may hold on to the bytes for so long at most.
WRITERS_GONE_S = 150.0


class Damaged(Exception):
    """What has arrived is not the content it was said to be; nothing of it is kept."""


class Busy(Exception):
    """Somebody else is writing into it and does not end."""


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
        """Become the one who asks for it; False when somebody else does. By now it may be here already: look again."""
        if self._lock is None:
            self._lock = locks.lock(self.path + ".lock")
        return self._lock is not None

    def begin(self) -> None:
        """Make the file, of its full size, without taking up space for what is not there."""
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb+") as file:
            if os.fstat(file.fileno()).st_size != self.size:
                # It was never as long, or something has cut it: what was noted of it does not hold.
                self._forget_ranges()
                file.truncate(self.size)

    def release(self) -> None:
        """Leave it to others, with what has arrived."""
        try:
            self.rest()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def leave(self) -> None:
        """Leave it to others, if it is not done; of what nothing has arrived nothing is kept."""
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
        """Return what has not arrived yet, from anybody."""
        self._note()
        return missing(self._noted(), self.size)

    def arrived(self) -> int:
        """Return how many bytes have arrived."""
        return total(merged(self._noted()))

    def _noted(self) -> list[Range]:
        ranges = []
        with contextlib.suppress(FileNotFoundError), open(self.path + ".ranges", "rb") as file:
            for line in file:
                words = line.split()
                # A full disk cuts a line short, and the next is joined to it: to three words, or to a beginning that is
                # larger than its own. So nothing counts that is not there.
                if line.endswith(b"\n") and len(words) == 2 and words[0].isdigit() and words[1].isdigit():
                    ranges.append((int(words[0]), int(words[1])))
        return ranges

    def _forget_ranges(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path + ".ranges")

    # -- writing

    def write(self, at: int, data: bytes) -> None:
        """Put bytes at their place. They count when they are written down: now and then, and by :meth:`rest`."""
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
        """Take note of zeros, which are there without being written."""
        self._start_writing()
        self._add(at, at + length)

    def rest(self) -> None:
        """Write down what has arrived, and keep nothing open but the lock."""
        if self._fd is None:
            return
        try:
            self._check_stored(self._fd)
            self._note()
        finally:
            os.close(self._fd)
            self._fd = None

    def _check_stored(self, fd: int) -> None:
        """Have a network's file system say, as it does when a file is closed, whether it could store what it took."""
        try:
            os.close(os.dup(fd))
        except OSError:
            # Which bytes were lost nobody knows.
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
            fd = os.open(self.path + ".ranges", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                # If the bytes were thrown away, this may be the note of others that have come in their place. In this
                # order: who makes new bytes removes the notes that are there.
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
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        locks.lock_file(fd, timeout_s=None, exclusive=False)
        if not locks.is_current(fd, self.path):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "it has its final name", self.path)
        self._fd = fd

    # -- the end

    def publish(self) -> str:
        """
        Give it its final name, and return its SHA-256. Call when nothing is missing.

        :raises Damaged: it is not what its key says.
        :raises Busy: somebody else goes on writing into it.
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
        # Not before: bytes that are still on their way have to be opened for writing, by whoever goes on with them.
        os.fchmod(self._fd, 0o400)
        self._contents.tag(self.key, sha256)
        self.discard()
        return sha256

    def discard(self) -> None:
        """Remove what is left under this key. The lock comes last: who gets it next finds nothing, or the content."""
        self._unnoted = (0, 0)
        self._forget_ranges()
        for suffix in ("", ".lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + suffix)
        self.release()
