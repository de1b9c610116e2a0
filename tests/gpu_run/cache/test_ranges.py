"""Ranges of bytes, against a model that marks every single one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gpu_cluster.gpu_run.cache.ranges import Range, merged, missing, total

MOST = 64
RANGES = st.lists(st.tuples(st.integers(0, MOST), st.integers(0, MOST)), max_size=12)


def marked(ranges: list[Range], size: int = MOST) -> bytearray:
    """Return a byte for each byte: 1 where it is in one of the ranges."""
    bits = bytearray(size)
    for start, end in ranges:
        for at in range(start, min(end, size)):
            bits[at] = 1
    return bits


@given(RANGES)
def test_merged_ranges_are_the_same_bytes_in_order_and_as_few_as_can_be(ranges: list[Range]) -> None:
    found = merged(ranges)
    assert marked(found) == marked(ranges)
    assert all(start < end for start, end in found)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(found))
    assert total(found) == sum(marked(ranges))
    assert merged(found) == found


@given(RANGES, st.integers(0, MOST))
def test_what_is_missing_is_what_is_not_marked(ranges: list[Range], size: int) -> None:
    gaps = missing(ranges, size)
    assert marked(gaps, size) == bytearray(1 - bit for bit in marked(ranges, size))
    assert merged(gaps) == gaps
    assert missing([*ranges, *gaps], size) == []


@given(st.permutations(range(8)), st.integers(1, 8))
def test_the_order_in_which_ranges_come_does_not_matter(order: list[int], count: int) -> None:
    ranges = [(at * 4, at * 4 + 4) for at in order[:count]]
    assert merged(ranges) == merged(sorted(ranges))
    assert total(missing(ranges, 32)) == 32 - 4 * count


def test_nothing() -> None:
    assert merged([]) == []
    assert missing([], 0) == []
    assert missing([], 5) == [(0, 5)]
    assert missing([(7, 9)], 5) == [(0, 5)]
    assert total([]) == 0
