"""The names by which both ends of a watch know subscriptions and errands: no two have the same."""

from __future__ import annotations

import itertools

_keys = itertools.count(1)


def next_key() -> int:
    """Return a number that nothing else in this process has."""
    return next(_keys)
