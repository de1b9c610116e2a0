"""
The verb ``read-log``: a window of a job's log, from any place, of a log of any size.

A window has whole lines where it can. A line that is longer comes in pieces, which are cut between characters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..protocol.logs import AFTER, AROUND, BEFORE, MOST_BYTES, MOST_LINES
from ..protocol.masks import longest
from ..reply import Reply
from .hiding import MOST_BYTES_OF_CHARACTER, Window, finished, read, window
from .log_part import LogPart, open_part

if TYPE_CHECKING:
    from ..protocol.logs import LogWindow, ReadLogRequest
    from ..store.directories import Root

# How long a progress bar may be.
_BAR_BYTES = 4096
# Of a character, behind its first byte.
_MOST_CONTINUATIONS = 3


def answer(root: Root, request: ReadLogRequest) -> Reply:
    """Carry out the verb ``read-log``."""
    with open_part(root.job(request["job_id"]), request.get("attempt"), request["stream"]) as part:
        return Reply(
            log_window(
                part,
                request.get("place"),
                request.get("way", AFTER),
                most_bytes=request.get("most_bytes", MOST_BYTES),
                most_lines=request.get("most_lines", MOST_LINES),
            )
        )


def log_window(
    part: LogPart, place: int | None, way: str, *, most_bytes: int = MOST_BYTES, most_lines: int = MOST_LINES
) -> LogWindow:
    """
    Return a window of a log.

    :param place: in bytes of the log; by default its start or, if the window is not after that, its end.
    :param way: where the window is, seen from there.
    """
    start, stop = part.file["start"], shown_until(part)
    if place is None:
        place = start if way == AFTER else stop
    place = max(start, min(place, stop))
    most_bytes, most_lines = max(1, min(most_bytes, MOST_BYTES)), max(1, min(most_lines, MOST_LINES))
    begin = place if way == AFTER else max(start, place - (most_bytes // 2 if way == AROUND else most_bytes))
    end = place if way == BEFORE else min(stop, begin + most_bytes)
    if part.fd is None:
        return _window_of(Window(begin, b"", []), part, stop)
    found = window(part.fd, begin, end, part.masks)
    if way != AFTER and begin > start:
        found = _from_a_line(found, end if way == BEFORE else place)
    # What comes before a place ends there.
    if way != BEFORE and end < stop:
        found = _to_a_line(found, place)
    return _window_of(_with_lines(found, most_lines, place, way), part, stop)


def shown_until(part: LogPart) -> int:
    """Return where in a log what may be shown ends."""
    stop = part.file["stop"]
    if part.fd is None or not part.file["grows"]:
        return stop
    begin = max(part.file["start"], stop - max(_BAR_BYTES, MOST_BYTES_OF_CHARACTER * longest(part.masks)))
    data = read(part.fd, begin, stop)
    return begin + finished(data, part.masks)


def _from_a_line(found: Window, place: int) -> Window:
    """Let a window that has that place begin with a line, if one begins before it; otherwise with a character."""
    line = found.data.find(b"\n", 0, max(0, place - found.start)) + 1
    begin = line if 0 < line < len(found.data) else _continuations(found.data)
    return cut(found, begin, len(found.data))


def _to_a_line(found: Window, place: int) -> Window:
    """Let a window that has that place end with a line, if one ends after it; otherwise with a character."""
    data = found.data
    line = data.rfind(b"\n", max(0, place - found.start)) + 1
    if line:
        return cut(found, 0, line)
    for back in range(1, min(_MOST_CONTINUATIONS + 1, len(data))):
        if data[-back] >= 0xC0:
            needs = 4 if data[-back] >= 0xF0 else 3 if data[-back] >= 0xE0 else 2
            return cut(found, 0, len(data) - back) if back < needs else found
        if data[-back] < 0x80:
            break
    return found


def _continuations(data: bytes) -> int:
    """Return how many bytes at the beginning are the end of a character."""
    return next((at for at, byte in enumerate(data[: _MOST_CONTINUATIONS + 1]) if byte & 0xC0 != 0x80), 0)


def _with_lines(found: Window, most: int, place: int, way: str) -> Window:
    """Return not more than so many lines: the last ones if all are before the place, and those around it."""
    ends = [line.end() for line in re.finditer(rb"\n", found.data)]
    if len(ends) < most:
        return found
    if ends[-1] < len(found.data):
        ends.append(len(found.data))
    first = 0
    if way == BEFORE:
        first = max(0, len(ends) - most)
    elif way == AROUND:
        at = next((index for index, end in enumerate(ends) if found.start + end > place), len(ends))
        first = max(0, min(at - most // 2, len(ends) - most))
    last = min(len(ends), first + most)
    return cut(found, ends[first - 1] if first else 0, ends[last - 1] if last else 0)


def cut(found: Window, begin: int, end: int) -> Window:
    """Return a part of a window."""
    secrets = [(max(0, one - begin), min(other, end) - begin) for one, other in found.secrets]
    return Window(found.start + begin, found.data[begin:end], [place for place in secrets if place[0] < place[1]])


def _window_of(found: Window, part: LogPart, stop: int) -> LogWindow:
    data, start = found.data, part.file["start"]
    lines, sizes = _lines(found)
    before = read(part.fd, found.start - 1, found.start) if part.fd is not None and found.start > start else b"\n"
    return {
        **part.file,
        "offset": found.start,
        "end": found.start + len(data),
        "lines": lines,
        "bytes": sizes,
        "whole_start": before == b"\n",
        "whole_end": data.endswith(b"\n") or not data,
        "at_end": found.start + len(data) >= stop,
    }


def _lines(found: Window) -> tuple[list[str], list[int]]:
    """Return the lines without secrets, and how many bytes each has in the log."""
    lines, sizes = found.hidden().split(b"\n"), [len(line) + 1 for line in found.data.split(b"\n")]
    sizes[-1] -= 1
    if not sizes[-1]:
        del lines[-1], sizes[-1]
    return [line.decode("utf-8", "backslashreplace") for line in lines], sizes
