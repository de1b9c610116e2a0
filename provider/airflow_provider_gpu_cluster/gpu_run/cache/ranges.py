"""Ranges of bytes: which are there, and which are missing. Pure."""

from __future__ import annotations

from typing import Iterable, Tuple

Range = Tuple[int, int]
"""Where it begins, and where it ends (exclusive)."""


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same bytes in order, in as few ranges as possible."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def missing(ranges: Iterable[Range], size: int) -> list[Range]:
    """Return which of the first ``size`` bytes are not in any range."""
    gaps = []
    at = 0
    for start, end in merged(ranges):
        if start >= size:
            break
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    if at < size:
        gaps.append((at, size))
    return gaps


def total(ranges: Iterable[Range]) -> int:
    """Return the number of bytes in ranges that do not overlap."""
    return sum(end - start for start, end in ranges)
