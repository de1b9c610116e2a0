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
        self._stretches: list[list[Point]] = []

    def add(self, point: Point) -> None:
        """Take the next point."""
        if self._in_last == self._width or not self._stretches:
            if len(self._stretches) == self._most_stretches:
                self._double()
                self.add(point)
                return
            self._stretches.append([point] * 4)
            self._in_last = 1
            return
        self._in_last += 1
        last = self._stretches[-1]
        last[3] = point
        if _is_lower(point, last[1]):
            last[1] = point
        if _is_higher(point, last[2]):
            last[2] = point

    def _double(self) -> None:
        old = self._stretches
        pairs = [_joined(*old[index : index + 2]) for index in range(0, len(old) - 1, 2)]
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


def _joined(first: list[Point], second: list[Point]) -> list[Point]:
    low = second[1] if _is_lower(second[1], first[1]) else first[1]
    high = second[2] if _is_higher(second[2], first[2]) else first[2]
    return [first[0], low, high, second[3]]


def _is_lower(point: Point, other: Point) -> bool:
    return other.y is not None and (point.y is None or point.y < other.y)


def _is_higher(point: Point, other: Point) -> bool:
    return point.y is not None and (other.y is None or point.y > other.y)
