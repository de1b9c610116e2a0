"""A month's file of the ledger: whole lines, whatever was done to it."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from ..linux import regular_files

#: More than any line has.
MOST_LINE_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_MODE = 0o600


class Month:
    """
    The open file of a month.

    :param path: of the file.
    :param fd: the open file.
    """

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.size = os.fstat(fd).st_size

    @classmethod
    def open(cls, path: str, *, create: bool = True) -> Month:
        """
        Open a file, to append to it under the ledger's lock, or only to read it.

        :param create: to append: make it if there is none, put aside what is no ledger, and cut off what a writer has
            left that was killed.
        :raises OSError: that is not possible.
        """
        if not create:
            return cls(path, regular_files.open_to_read(path))
        try:
            return cls._open_to_append(path)
        except (regular_files.NotRegular, ValueError):
            put_aside(path)
        except PermissionError:
            # Somebody has taken away this user's own right to write.
            os.chmod(path, _MODE)
        return cls._open_to_append(path)

    @classmethod
    def _open_to_append(cls, path: str) -> Month:
        writer = regular_files.open_to_append(path)
        month = cls(path, writer)
        try:
            month._cut_torn_end()
        except BaseException:
            os.close(writer)
            raise
        return month

    def __enter__(self) -> Month:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)

    def _cut_torn_end(self) -> None:
        """
        Cut off a line that was not written to its end.

        :raises ValueError: it is no file of lines.
        """
        if not self.size:
            return
        start = max(0, self.size - MOST_LINE_BYTES)
        end = regular_files.read_end(self._path, MOST_LINE_BYTES)
        if end.endswith(b"\n"):
            return
        last = end.rfind(b"\n")
        if last < 0 < start:
            raise ValueError(f"{self._path} has no lines")
        self.size = start + last + 1
        os.ftruncate(self._fd, self.size)

    def append(self, *lines: bytes, sync: bool = False) -> None:
        """
        Append lines, or nothing.

        :param sync: wait until they are on the disk.
        """
        if max(map(len, lines)) > MOST_LINE_BYTES:
            raise ValueError(f"a line is too long for {self._path}")
        text = b"".join(lines)
        try:
            if os.write(self._fd, text) != len(text):
                # What is left of the disk was not enough for all of it.
                raise OSError(f"{self._path}: there is no room for it")
            if sync:
                os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(text)

    def line_at(self, offset: int) -> bytes:
        """Return the whole line that begins at a place; nothing if there is none."""
        data = os.pread(self._fd, MOST_LINE_BYTES, offset)
        return data[: data.find(b"\n") + 1]

    def lines_from(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield the whole lines from a place on, each with the place where the next one begins."""
        rest = b""
        is_too_long = False
        while True:
            block = os.pread(self._fd, _BLOCK_BYTES, offset + len(rest))
            if not block:
                return
            *lines, rest_of_block = (rest + block).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                if not is_too_long and len(line) < MOST_LINE_BYTES:
                    yield offset, line
                is_too_long = False
            rest = rest_of_block
            if len(rest) > MOST_LINE_BYTES:
                # What follows up to its end is not kept, as memory may not be enough for it.
                offset += len(rest)
                rest, is_too_long = b"", True


def put_aside(path: str) -> None:
    """Give whatever is in the place of a file another name; do nothing if nothing is there."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, f"{path}.{os.urandom(16).hex()}.replaced")
