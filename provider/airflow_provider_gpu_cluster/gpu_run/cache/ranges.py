"""Ranges of bytes: which of them there are, and which are missing. Pure."""

from __future__ import annotations

from typing import Iterable, Tuple

Range = Tuple[int, int]
"""Where it begins, and where it ends; the end is not in it."""


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same bytes in order, as few ranges as can be."""
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
    """Return what is not among the first ``size`` bytes yet."""
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
    """Return how many bytes ranges that do not overlap have together."""
    return sum(end - start for start, end in ranges)
