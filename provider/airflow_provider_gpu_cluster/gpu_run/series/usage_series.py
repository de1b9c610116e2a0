"""The curves of what a job has used of its GPUs and its host."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Iterator

from ..protocol.masks import hidden as without_secrets
from ..protocol.series import MOST_CURVES, MOST_NAMES, MOST_POINTS
from .names import Name
from .numbers import shown_name
from .progress_files import OpenFiles, history_files, sections
from .progress_series import curve_of
from .thinning import Point, Thinned

if TYPE_CHECKING:
    from ..protocol.masks import Masks
    from ..protocol.series import SeriesReply, SeriesRequest
    from ..store.directories import JobDirectory

_MOST_BYTES = 1 << 22
_OF_GPU = ("percent", "memory_bytes", "power_w", "celsius")
_OF_HOST = ("memory_bytes", "cpus")
_SHOWN_UNASKED = ("percent", "memory_bytes", "cpus")
# Of all curves together, so that a reply stays small.
_MOST_OF_ALL_POINTS = MOST_CURVES * MOST_POINTS


def usage_series(job: JobDirectory, masks: Masks | None, request: SeriesRequest) -> SeriesReply:
    """Return the history of a job's use; of a very long one, the end."""
    with OpenFiles(history_files(job, "usage")) as files:
        lines, left_out = _last_lines(files)
        points = [point for point in map(_parsed, lines) if point is not None]
        names: dict[str, Name] = {}
        for _, values in points:
            for name, number in values:
                if name not in names and len(names) < MOST_NAMES:
                    names[name] = Name(shown_name(without_secrets(name, masks)))
                if name in names:
                    names[name].add(number, 0)
        wanted = request.get("names") or [name for name in names if name.rpartition("/")[2] in _SHOWN_UNASKED]
        most = min(MOST_POINTS, _MOST_OF_ALL_POINTS // max(1, len(wanted)))
        kept = {name: Thinned(most) for name in wanted if name in names}
        for t, values in points:
            for name, number in values:
                if name in kept:
                    kept[name].add(Point(int(1000 * t), None, number, t))
        total = sum(file.size for file in files.files)
        return {
            "names": [one.told(masks) for one in names.values()],
            "more_names": 0,
            "x": None,
            "times": "lines",
            "within_s": None,
            "curves": [curve_of(names[name].shown, one.points(), masks, has_x=False) for name, one in kept.items()],
            "sections": sections(job, files),
            "slice": 0,
            "slices": 1,
            "until": total,
            "live_from": 0,
            "lines": len(lines),
            "bad_lines": len(lines) - len(points),
            "left_out_bytes": left_out,
            "problem": " ".join(files.problems),
        }


def _last_lines(files: OpenFiles) -> tuple[list[bytes], int]:
    lines: list[bytes] = []
    left, left_out = _MOST_BYTES, 0
    for file in reversed(files.files):
        size = min(left, file.size)
        start = file.size - size
        found = os.pread(file.fd, size, start).split(b"\n")[:-1]
        lines = found[1 if start else 0 :] + lines
        left -= size
        left_out += start
    return lines, left_out


def _parsed(line: bytes) -> tuple[float, list[tuple[str, float]]] | None:
    # A job can write there as well.
    try:
        value: Any = json.loads(line) if len(line) < 1 << 16 else None
        t = float(value["t"])
        if not 0 < t < 1e11:
            return None
        return t, list(_values(value))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


def _values(value: dict[str, Any]) -> Iterator[tuple[str, float]]:
    node = value.get("node")
    host = f"host/{node}" if isinstance(node, str) and node else "host"
    gpus = value.get("gpus")
    for gpu in gpus[:MOST_NAMES] if isinstance(gpus, list) else ():
        of_host = gpu.get("host") or ""
        which = f"gpu/{of_host}:{gpu['index']}" if of_host else f"gpu/{gpu['index']}"
        for quantity in _OF_GPU:
            if _is_number(gpu.get(quantity)):
                yield f"{which[:80]}/{quantity}", float(gpu[quantity])
    for quantity in _OF_HOST:
        if _is_number(value.get(quantity)):
            yield f"{host[:80]}/{quantity}", float(value[quantity])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
