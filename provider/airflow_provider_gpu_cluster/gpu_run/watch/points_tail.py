"""The new lines of a file of JSON lines: of PROGRESS_FILE, or of the samples of a job's use."""

from __future__ import annotations

import json
import math
import os
import re
import time
from typing import TYPE_CHECKING, Any

from ..jobs.hiding import masks_of, read
from ..linux import regular_files
from ..protocol.following import PROGRESS
from ..protocol.masks import hidden_in

if TYPE_CHECKING:
    from ..protocol.following import PointNews, TailPlace
    from ..protocol.masks import Masks
    from ..store.directories import JobDirectory

# What is read at once; of more, the newest.
_MOST_BYTES = 1 << 18
_MOST_LINE_BYTES = 1 << 16
MOST_POINTS = 200
MOST_NAMES = 200
# Nested more deeply, no page shows it; and to parse a number of a million digits takes seconds.
_MOST_BRACKETS = 200
_LONG_NUMBER = re.compile(rb"[0-9]{400}")


class PointsTail:
    """
    What is new in such a file.

    :param name: of the file, without its ending.
    :param place: where to go on; None for the file's present end.
    """

    def __init__(self, job: JobDirectory, name: str, place: TailPlace | None) -> None:
        self._job = job
        self._name = name
        self._path = job.at("logs", f"{name}.jsonl")
        self._place = place
        self._size = -1

    def has_grown(self) -> bool:
        """Return whether there may be something new."""
        try:
            size = os.stat(self._path).st_size
        except OSError:
            size = 0
        is_news, self._size = size != self._size, size
        return is_news or self._place is None

    def news(self, attempt: int) -> PointNews | None:
        """
        Return what is new; None if nothing is.

        :raises Refused: which secrets the job has is unknown.
        :raises OSError: it cannot be read now.
        """
        masks = masks_of(self._job)
        try:
            fd = regular_files.open_to_read(self._path, follow=True)
        except (FileNotFoundError, NotADirectoryError, PermissionError, regular_files.NotRegular):
            return self._begin("", 0) if self._place is None else None
        try:
            found = os.fstat(fd)
            file, size = f"{found.st_dev:x}-{found.st_ino:x}", found.st_size
            if self._place is None:
                return self._begin(file, _end_of_lines(fd, size))
            return self._read(fd, file, size, attempt, masks)
        finally:
            os.close(fd)

    def _begin(self, file: str, offset: int) -> PointNews:
        self._place = {"file": file, "offset": offset}
        return {"points": [], "skipped": 0, "place": self._place}

    def _read(self, fd: int, file: str, size: int, attempt: int, masks: Masks | None) -> PointNews | None:
        assert self._place is not None
        is_same = self._place["file"] in ("", file) and self._place["offset"] <= size
        # Another file may have taken its place.
        start = self._place["offset"] if is_same else 0
        at = max(start, size - _MOST_BYTES)
        data = read(fd, at, size)
        skipped = 0
        if at > start:
            # How many lines are before this one nobody counts.
            cut = data.find(b"\n") + 1
            at, data, skipped = at + cut, data[cut:], 1
        whole = data.rfind(b"\n") + 1
        # A line that is too long is not waited for.
        is_too_long = len(data) - whole > _MOST_LINE_BYTES
        self._place = {"file": file, "offset": at + (len(data) if is_too_long else whole)}
        points = []
        for line in data[:whole].splitlines(keepends=True):
            point = self._point(line, at, attempt, masks)
            at += len(line)
            if point is not None:
                points.append(point)
            else:
                skipped += 1
        skipped += is_too_long + max(0, len(points) - MOST_POINTS)
        if not points and not skipped:
            return None
        return {"points": points[-MOST_POINTS:], "skipped": skipped, "place": self._place}

    def _point(self, line: bytes, at: int, attempt: int, masks: Masks | None) -> dict[str, Any] | None:
        if len(line) > _MOST_LINE_BYTES or line.count(b"{") + line.count(b"[") > _MOST_BRACKETS:
            return None
        try:
            value = None if _LONG_NUMBER.search(line) else json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
        values = sendable(hidden_in(dict(list(value.items())[:MOST_NAMES]), masks))
        if self._name == PROGRESS:
            return {"at": at, "t": round(time.time(), 3), "attempt": attempt, "values": values}
        return {**values, "attempt": attempt}


def _end_of_lines(fd: int, size: int) -> int:
    """Return where the last whole line of a file ends."""
    start = max(0, size - _MOST_LINE_BYTES)
    line = read(fd, start, size).rfind(b"\n") + 1
    return start + line if line or not start else size


def sendable(value: Any) -> Any:
    """Return a value in which numbers that JSON does not have are texts, as browsers cannot read the bare words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: sendable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [sendable(one) for one in value]
    return value
