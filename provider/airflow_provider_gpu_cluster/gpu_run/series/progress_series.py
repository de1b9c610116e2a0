"""The curves of what a job has reported in PROGRESS_FILE."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Sequence

from ..protocol.masks import HIDDEN
from ..protocol.masks import hidden as without_secrets
from ..protocol.series import MOST_CURVES, MOST_POINTS
from .names import Name, Names, whole
from .numbers import moment_in, numbers_in, object_in
from .progress_files import OpenFiles, clocks, history_files, sections
from .slices import FileLine, OpenFile, lines_of_slice, slices_of
from .thinning import Point, Thinned

if TYPE_CHECKING:
    from ..protocol.masks import Masks
    from ..protocol.series import Curve, SeriesReply, SeriesRequest
    from ..store.directories import JobDirectory

#: What the numbers over which others are drawn are usually called, the usual ones first.
_USUAL_X = ("step", "global_step", "iteration", "iter", "epoch", "batch", "_step")
_NO_METRICS = {*_USUAL_X, "total", "time", "timestamp", "_timestamp", "wall_time", "ts"}
# What tells which names are the most recent.
_END_BYTES = 1 << 16
_LAST_LINES = 64
# To say which numbers rise, and which names there are, no more of a line is looked at.
_MOST_OF_A_LINE = 12_000


def progress_series(job: JobDirectory, masks: Masks | None, request: SeriesRequest) -> SeriesReply:
    """Return a part of the history of a job's progress."""
    with OpenFiles(history_files(job, "progress")) as files:
        number, until = request.get("slice", 0), request.get("until")
        if until is not None:
            files.cut_at(until)
        return _History(job, masks, files, request).read(number)


class _History:
    """One look at the history."""

    def __init__(self, job: JobDirectory, masks: Masks | None, files: OpenFiles, request: SeriesRequest) -> None:
        self._files = files
        self._masks = masks
        self._sections = sections(job, files)
        self._begins = [one["at"] for one in self._sections if one["at"] is not None]
        self._clocks = clocks(job, files, self._sections)
        self._before = [files.before(index) for index in range(len(files.files))]
        self._wanted = list(request.get("names") or ())[:MOST_CURVES]
        self._names = Names(masks, {*self._wanted, *filter(None, [request.get("x")])})
        self._x = request.get("x")
        self._now = time.time()
        self._lines = self._bad_lines = 0
        self._own_times = self._sampled_times = 0

    def read(self, number: int) -> SeriesReply:
        """Read a slice."""
        files = self._files.files
        total = sum(file.size for file in files)
        slices = slices_of(total)
        number = min(number, slices - 1)
        chosen, x = self._chosen()
        kept = {name: Thinned(MOST_POINTS) for name in chosen}
        for line in lines_of_slice(files, number, slices):
            self._take(line, kept, x)
        names = self._names.all()
        return {
            "names": [name.told(self._masks) for name in names if name.count],
            "more_names": len(self._names.others),
            "x": x,
            "times": self._times(),
            "within_s": self._within_s(),
            "curves": [curve_of(name, kept[name].points(), self._masks, has_x=True) for name in kept],
            "sections": self._sections,
            "slice": number,
            "slices": slices,
            "until": total,
            "live_from": self._live_from(),
            "lines": self._lines,
            "bad_lines": self._bad_lines,
            "left_out_bytes": 0,
            "problem": " ".join(self._files.problems),
        }

    def _chosen(self) -> tuple[list[str], str | None]:
        """Return whose points to keep, and over what to draw them."""
        recent = self._recent()
        shown = [name.shown for name in recent]
        x = self._x
        if x is None:
            x = next((name for name in _USUAL_X if name in shown), None)
        if x is None:
            x = next((name.shown for name in recent if name.is_rising), None)
        wanted = self._wanted or [name for name in shown if name not in _NO_METRICS and name != x][:MOST_CURVES]
        return wanted, x

    def _recent(self) -> list[Name]:
        """Return the names in the last lines, the most recent first; they are the first to be kept."""
        found = Names(self._masks, set())
        for file in reversed(self._files.files):
            objects = [value for value in map(object_in, _last_lines(file)) if value is not None]
            for value in reversed(objects):
                for raw, _ in islice(numbers_in(value), _MOST_OF_A_LINE):
                    found.of(raw)
                    self._names.of(raw)
            for value in objects:
                for raw, number in islice(numbers_in(value), _MOST_OF_A_LINE):
                    name = found.of(raw)
                    if name is not None:
                        name.add(number, 0)
            if objects:
                break
        return found.all()

    def _take(self, line: FileLine, kept: dict[str, Thinned], x_name: str | None) -> None:
        self._lines += 1
        value = None if line.text is None else object_in(line.text)
        if value is None:
            self._bad_lines += 1
            return
        at = self._before[line.file] + line.start
        section = bisect_right(self._begins, at)
        x: float | None = None
        met: list[tuple[Thinned, float]] = []
        for raw, number in islice(numbers_in(value), _MOST_OF_A_LINE):
            name = self._names.of(raw)
            if name is None:
                continue
            name.add(number, section)
            if name.shown == x_name:
                x = number
            if name.shown in kept:
                met.append((kept[name.shown], number))
        if not met:
            return
        t = self._moment(value, line)
        x = None if x is None or x - x != 0 else x
        for thinned, number in met:
            thinned.add(Point(at, x, number if number - number == 0 else None, t))

    def _moment(self, value: dict[str, object], line: FileLine) -> float | None:
        own = moment_in(value, self._now)
        if own is not None:
            self._own_times += 1
            return own
        sampled = self._clocks[line.file].written_at(line.end)
        if sampled is not None:
            self._sampled_times += 1
        return sampled

    def _times(self) -> str:
        if self._own_times and self._sampled_times:
            return "both"
        return "lines" if self._own_times else "samples" if self._sampled_times else "none"

    def _within_s(self) -> float | None:
        told = [clock.within_s for clock in self._clocks if clock.within_s is not None]
        return round(max(told), 1) if told and self._sampled_times else None

    def _live_from(self) -> int:
        names = self._files.names
        is_there = bool(names) and names[-1].until_attempt is None
        return self._files.before(len(names) - is_there)


def _last_lines(file: OpenFile) -> Sequence[bytes]:
    start = max(0, file.size - _END_BYTES)
    lines = os.pread(file.fd, file.size - start, start).split(b"\n")[:-1]
    if start and len(lines) < 2:
        # One with very many names.
        start = max(0, file.size - (1 << 20))
        lines = os.pread(file.fd, file.size - start, start).split(b"\n")[:-1]
    return lines[1 if start else 0 :][-_LAST_LINES:]


def curve_of(name: str, points: Sequence[Point], masks: Masks | None, *, has_x: bool) -> Curve:
    """Return points as the reply has them, without those that are a secret of the job."""
    if masks is not None and HIDDEN in _hidden_numbers(points, masks):
        points = [point for point in points if HIDDEN not in _hidden_numbers([point], masks)]
    return {
        "name": name,
        "at": [point.at for point in points],
        "x": [_short(point.x, 12) for point in points] if has_x else [],
        "y": [_short(point.y, 7) for point in points],
        "t": [None if point.t is None else round(point.t, 2) for point in points],
    }


def _hidden_numbers(points: Sequence[Point], masks: Masks) -> str:
    numbers = (whole(number) for point in points for number in (point.x, point.y) if number is not None)
    return without_secrets("\n".join(map(repr, numbers)), masks)


def _short(number: float | None, digits: int) -> float | None:
    """Return a number with so many digits, a whole one with all."""
    if number is None:
        return None
    found = whole(number)
    return found if isinstance(found, int) else float(f"{number:.{digits}g}")
