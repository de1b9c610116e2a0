"""The ends of a job's logs."""

from __future__ import annotations

import os
from typing import Mapping

from ..linux import regular_files

#: How much of what a launcher or a scheduler has printed is read.
TAIL_BYTES = 16384
#: How much of a job's own output is read, in order to judge why it failed.
OUTPUT_BYTES = 8 << 20
# How far back an exception is searched if that has none.
_SEARCHED_BYTES = 256 << 20
_PIECE = 4 << 20
_LANDMARK = b"Traceback (most recent call last)"
_AROUND_BYTES = 1 << 16


def tail(logs: str, size: int, *, whole: bool = False, starts: Mapping[str, int] | None = None) -> str:
    """
    Return the last lines of the output: of stderr if it has any, of everything otherwise.

    :param size: how many bytes at most.
    :param whole: of everything, even if stderr has any.
    :param starts: where the output of the attempt begins in each log; see :meth:`.Attempt.log_starts`.
    """
    starts = starts or {}
    for name in ("training", "environment") if whole else ("error", "training", "environment"):
        # One more byte shows whether the text begins in the middle of a line.
        data = read_end(os.path.join(logs, name + ".log"), size + 1, starts.get(name, 0))
        if data.strip():
            return (_whole_lines(data) if len(data) > size else data).decode("utf-8", "backslashreplace")
    return ""


def _whole_lines(data: bytes) -> bytes:
    """Leave out an incomplete first line, which would only mislead."""
    rest = data.partition(b"\n")[2]
    return rest if rest.strip() else data[1:]


def read_end(path: str, size: int, start: int = 0) -> bytes:
    """
    Return the last bytes of a file, or of the file that a link leads to; none when it cannot be read.

    :param start: nothing before this place.
    """
    try:
        return regular_files.read_end(path, size, follow=True, start=start)
    except OSError:
        return b""


def output_since(path: str, start: int) -> bytes:
    """
    Return the end of a log; before it, the last traceback before that end, if the end has none.

    :param start: nothing before this place.
    """
    end = read_end(path, OUTPUT_BYTES, start)
    if len(end) < OUTPUT_BYTES or _LANDMARK in end:
        return end
    try:
        fd = regular_files.open_to_read(path, follow=True)
    except OSError:
        return end
    try:
        at = _last_landmark(fd, start, os.fstat(fd).st_size - len(end))
        return end if at is None else os.pread(fd, _AROUND_BYTES, at) + b"\n" + end
    finally:
        os.close(fd)


def _last_landmark(fd: int, start: int, end: int) -> int | None:
    """Return where the last traceback between two places begins, with a little of what is before it."""
    lowest = max(start, end - _SEARCHED_BYTES)
    while end > lowest:
        begin = max(lowest, end - _PIECE)
        found = os.pread(fd, end - begin + len(_LANDMARK), begin).rfind(_LANDMARK)
        if found >= 0:
            return max(start, begin + found - _AROUND_BYTES // 4)
        end = begin
    return None
