"""
A curve with so many points becomes one with few that looks the same: of each stretch the first, the lowest, the
highest and the last point are kept.

This is M4 (Jugel and others, "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014). Its stretches
are of equally many points here, so that it needs no range in advance, and the order of the points is kept whatever
they say. They double when there are too many, which loses nothing: the extremes of two are those of both.
"""

from __future__ import annotations

from typing import NamedTuple

_KEPT_OF_EACH = 4


class Point(NamedTuple):
    """
    One point of a curve.

    :param at: its place in the order of the points.
    :param x: what it is drawn over; None if its line does not say it.
    :param y: the value; None for one that is not finite, where the curve has a gap.
    :param t: when it was written, in seconds since the epoch; None if nobody knows.
    """

    at: int
    x: float | None
    y: float | None
    t: float | None


class Thinned:
    """
    Takes any number of points in their order, and keeps few.

    :param most: so many at most.
    """

    def __init__(self, most: int) -> None:
        self._most_stretches = max(2, most // _KEPT_OF_EACH)
        self._width = 1
        self._in_last = 0
        # Of each stretch its first, lowest, highest and last point; the lowest is a gap if there is one.
        self._stretches: list[tuple[Point, Point, Point, Point]] = []

    def add(self, point: Point) -> None:
        """Take the next point."""
        if self._stretches and self._in_last < self._width:
            self._stretches[-1] = _joined(self._stretches[-1], (point, point, point, point))
            self._in_last += 1
            return
        if len(self._stretches) == self._most_stretches:
            self._double()
            self.add(point)
            return
        self._stretches.append((point, point, point, point))
        self._in_last = 1

    def _double(self) -> None:
        old = self._stretches
        pairs = [_joined(old[index], old[index + 1]) for index in range(0, len(old) - 1, 2)]
        if len(old) % 2:
            pairs.append(old[-1])
        else:
            self._in_last += self._width
        self._stretches = pairs
        self._width *= 2

    def points(self) -> list[Point]:
        """Return the points that are kept, in their order."""
        found = {point.at: point for stretch in self._stretches for point in stretch}
        return [found[at] for at in sorted(found)]


def _joined(
    first: tuple[Point, Point, Point, Point], second: tuple[Point, Point, Point, Point]
) -> tuple[Point, Point, Point, Point]:
    lows, highs = (first[1], second[1]), (first[2], second[2])
    low = lows[0] if lows[0].y is None or (lows[1].y is not None and lows[0].y <= lows[1].y) else lows[1]
    high = highs[1] if highs[0].y is None or (highs[1].y is not None and highs[1].y > highs[0].y) else highs[0]
    return first[0], low, high, second[3]
