"""The numbers that a job reports: how often each of many names was met, and what it said."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..protocol.masks import HIDDEN, hidden
from ..protocol.series import MOST_NAMES
from .numbers import MOST_CHARACTERS, shown_name

if TYPE_CHECKING:
    from ..protocol.masks import Masks
    from ..protocol.series import SeriesName

# Longer ones are none that somebody has chosen; and so many others are counted.
_MOST_RAW_CHARACTERS = 10 * MOST_CHARACTERS
_MOST_OTHERS = 10_000


class Name:
    """One name, and what was seen of its numbers."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.count = 0
        self.least = math.inf
        self.most = -math.inf
        self.last = math.nan
        self._before = 0.0
        self._section = -1
        self._falls = False

    def add(self, number: float, section: int) -> None:
        """Take the next number; ``section`` is the number of the attempt's part of the history."""
        # Called for each number of a file, so it is quick rather than short.
        self.count += 1
        self.last = number
        if number - number != 0:
            self._falls = True
            return
        if number < self.least:
            self.least = number
        if number > self.most:
            self.most = number
        if section != self._section:
            self._section = section
        elif number < self._before:
            self._falls = True
        self._before = number

    @property
    def is_rising(self) -> bool:
        """Whether other numbers can be drawn over this one."""
        return not self._falls and self.least < self.most

    def told(self, masks: Masks | None) -> SeriesName:
        """Return it as the reply has it, without numbers that are a secret."""
        is_seen = self.least <= self.most
        least, most = (None, None) if not is_seen or _is_secret(self, masks) else (whole(self.least), whole(self.most))
        return {
            "name": self.shown,
            "count": self.count,
            "least": least,
            "most": most,
            "last": None if _is_secret(self, masks) else word_of(self.last),
            "is_rising": self.is_rising,
        }


def _is_secret(name: Name, masks: Masks | None) -> bool:
    numbers = (name.least, name.most, name.last)
    return masks is not None and HIDDEN in hidden(" ".join(repr(word_of(number)) for number in numbers), masks)


class Names:
    """
    The names that were met, by what the job calls them.

    :param masks: of the job's secrets.
    :param wanted: names, as they are shown, that are kept in any case.
    """

    def __init__(self, masks: Masks | None, wanted: set[str]) -> None:
        self._masks = masks
        self._wanted = wanted
        self._by_raw: dict[str, Name | None] = {}
        self._by_shown: dict[str, Name] = {}
        self.others: set[int] = set()

    def of(self, raw: str) -> Name | None:
        """Return what is known of a name; None for one of too many."""
        try:
            return self._by_raw[raw]
        except KeyError:
            pass
        if len(raw) > _MOST_RAW_CHARACTERS:
            self._count(raw)
            return None
        if len(self._by_shown) >= MOST_NAMES and not self._wanted:
            self._count(raw)
            return None
        shown = shown_name(hidden(raw, self._masks))
        name = self._by_shown.get(shown)
        if name is None:
            if len(self._by_shown) >= MOST_NAMES and shown not in self._wanted:
                self._count(raw)
                return None
            name = self._by_shown[shown] = Name(shown)
        self._by_raw[raw] = name
        return name

    def _count(self, raw: str) -> None:
        if len(self.others) < _MOST_OTHERS:
            self.others.add(hash(raw))

    def all(self) -> list[Name]:
        """Return them in the order in which they were first asked for."""
        return list(self._by_shown.values())


def word_of(number: float) -> float | str:
    """Return a number as JSON has it, and what JSON cannot say as a word."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return whole(number)


def whole(number: float) -> float:
    """Return a float that is a whole number as such, which is shorter to write."""
    return int(number) if abs(number) < 1e15 and number == int(number) else number
