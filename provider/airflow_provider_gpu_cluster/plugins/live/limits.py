"""How many pages may be open at the same time, and how much they may ask."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

from fastapi import HTTPException

MOST_OPEN = 1000
MOST_OF_USER = 100
MOST_MESSAGE_CHARACTERS = 200_000
# Messages of one page within the interval.
MOST_MESSAGES = 30
INTERVAL_S = 10.0

_open: Counter[str] = Counter()


@contextlib.contextmanager
def counted(user: str) -> Iterator[None]:
    """
    Count an open page as long as the block runs.

    :raises HTTPException: 429, 503: there are too many.
    """
    if _open[user] >= MOST_OF_USER:
        raise HTTPException(429, f"You have {MOST_OF_USER} live pages open in this API server; close some of them.")
    if _open.total() >= MOST_OPEN:
        raise HTTPException(503, f"{MOST_OPEN} live pages are open in this API server; try again later.")
    _open[user] += 1
    try:
        yield
    finally:
        _open[user] -= 1
        if not _open[user]:
            del _open[user]


class Rate:
    """Counts the messages of a page."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._count = 0

    def is_exceeded(self) -> bool:
        """Count one; return whether it is one too many."""
        now = time.monotonic()
        if now >= self._since + INTERVAL_S:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > MOST_MESSAGES
