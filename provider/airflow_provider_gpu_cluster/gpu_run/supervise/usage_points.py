"""
The samples of a job's use that are kept: a bounded number of points, however long it runs, as lines of a file.

A reader of the file never sees a part of a line. A line is appended only if it lies within one page of the file, so
that the kernel shows all of it or nothing, and a full disk takes all of it or nothing; otherwise the file is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
from functools import reduce
from typing import TYPE_CHECKING, Any, Callable, Sequence, cast

from ..linux import regular_files
from ..store.writing import write_text

if TYPE_CHECKING:
    from ..protocol.usage import GpuPoint, UsagePoint

MOST_POINTS = 1000
_PAGE = 4096


class UsagePoints:
    """
    The points of an attempt, and the file that shows them.

    :param path: of the file.
    :param make_folder: makes the folder of the file, which the job may have removed.
    :param most: so many points are kept at most.
    """

    def __init__(self, path: str, make_folder: Callable[[], object], most: int = MOST_POINTS) -> None:
        self._path = path
        self._make_folder = make_folder
        self._most = most
        self._points: list[UsagePoint] = []
        self._lines: list[str] = []
        # The file as this object has left it: its inode and size.
        self._left: tuple[int, int] | None = None

    def add(self, point: UsagePoint, *, is_shown: bool = True) -> None:
        """
        Keep a point, and show it in the file if the disk takes it.

        :param is_shown: otherwise it is shown together with the next one.
        """
        self._points.append(point)
        self._lines.append(_line(point))
        if len(self._points) > self._most:
            self._points = merged(self._points, self._most // 2)
            self._lines = [_line(one) for one in self._points]
            self._left = None
        if not is_shown:
            return
        with contextlib.suppress(OSError):
            if self._append(self._lines[-1].encode()):
                return
        self._left = None
        # If that fails, the next point is another try for this one, too.
        with contextlib.suppress(OSError):
            self._replace()

    def _append(self, line: bytes) -> bool:
        """Append a line to the file; return False if that is not possible in one piece, or it is another file now."""
        if self._left is None or self._left[1] % _PAGE + len(line) > _PAGE:
            return False
        found = os.lstat(self._path)
        if (found.st_ino, found.st_size) != self._left:
            return False
        fd = regular_files.open_to_append(self._path)
        try:
            written = os.write(fd, line)
            if written != len(line):
                os.ftruncate(fd, self._left[1])
                return False
        finally:
            os.close(fd)
        self._left = (self._left[0], self._left[1] + written)
        return True

    def _replace(self) -> None:
        text = "".join(self._lines)
        try:
            write_text(self._path, text)
        except OSError:
            self._make_folder()
            write_text(self._path, text)
        found = os.lstat(self._path)
        self._left = (found.st_ino, found.st_size)


def merged(points: Sequence[UsagePoint], most: int) -> list[UsagePoint]:
    """Return points that say the same in the mean, at most so many: neighbours that stand for little become one."""
    found = list(points)
    width_s = max(0.001, min((point["s"] for point in found if point["s"]), default=1.0))
    while len(found) > most:
        width_s *= 2
        found = _merged_to(found, width_s)
    return found


def _merged_to(points: Sequence[UsagePoint], width_s: float) -> list[UsagePoint]:
    found = [points[0]]
    for point in points[1:]:
        if found[-1]["s"] + point["s"] <= width_s:
            found[-1] = _mean(found[-1], point)
        else:
            found.append(point)
    return found


def mean_of(points: Sequence[UsagePoint]) -> UsagePoint:
    """Return neighbours as one."""
    return reduce(_mean, points)


def _mean(first: UsagePoint, second: UsagePoint) -> UsagePoint:
    """Return two neighbours as one."""
    weights = (first["s"], second["s"])
    # The time comes first, so that lines of several nodes are in order when they are sorted.
    point: UsagePoint = {"t": second["t"], "s": round(sum(weights), 3)}
    point.update(cast("UsagePoint", _means(first, second, ("memory_bytes", "cpus"), weights)))
    for one in (first, second):
        if "written_bytes" in one:
            point["written_bytes"] = one["written_bytes"]
        if "progress_bytes" in one:
            point["progress_bytes"] = one["progress_bytes"]
        if "node" in one:
            point["node"] = one["node"]
    gpus = _gpu_means(first.get("gpus", []), second.get("gpus", []), weights)
    if gpus:
        point["gpus"] = gpus
    return point


def _gpu_means(first: Sequence[GpuPoint], second: Sequence[GpuPoint], weights: tuple[float, float]) -> list[GpuPoint]:
    before = {_key(gpu): gpu for gpu in first}
    after = {_key(gpu): gpu for gpu in second}
    found = []
    for key in {**before, **after}:
        pair = before.get(key, {}), after.get(key, {})
        gpu = cast("GpuPoint", _means(*pair, ("percent", "memory_bytes", "power_w", "celsius"), weights))
        for one in pair:
            if "host" in one:
                gpu["host"] = one["host"]
        gpu["index"] = key[1]
        found.append(gpu)
    return found


def _key(gpu: GpuPoint) -> tuple[str, int]:
    return gpu.get("host", ""), gpu["index"]


def _means(first: Any, second: Any, names: Sequence[str], weights: tuple[float, float]) -> dict[str, float]:
    """Return the means of those values that at least one of two has."""
    found: dict[str, float] = {}
    for name in names:
        pairs = [(one[name], weight) for one, weight in zip((first, second), weights) if name in one]
        total = sum(weight for _, weight in pairs)
        if pairs:
            mean = sum(value * weight for value, weight in pairs) / total if total else pairs[-1][0]
            found[name] = round(mean) if name.endswith("_bytes") else round(mean, 3 if name == "cpus" else 1)
    return found


def _line(point: UsagePoint) -> str:
    return json.dumps(point, separators=(",", ":")) + "\n"
