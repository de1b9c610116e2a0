"""The parameters of an element, from the arguments that its program was given. No IO."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MOST_PARAMETERS = 100
_OPTION = re.compile(r"--?[A-Za-z_][\w.\-/@]*")
# As Hydra takes them: lr=0.1, +model.depth=3, ~x
_ASSIGNED = re.compile(r"([+~]{0,2}[A-Za-z_][\w.\-/@]*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_MOST_DIGITS = 15


def parameters_of(arguments: Sequence[str]) -> dict[str, str | float | bool]:
    """
    Return the parameters by their names.

    ``--name value``, ``--name=value`` and ``name=value`` have names, ``--name`` alone is true, and all else is named
    after its place: ``#1``. What is given again has the number of the time after its name.
    """
    found: dict[str, str | float | bool] = {}
    place = 0
    rest = list(arguments)
    while rest and len(found) < MOST_PARAMETERS:
        word = rest.pop(0)
        assigned = _ASSIGNED.fullmatch(word.lstrip("-"))
        if assigned is not None:
            name, value = assigned[1], value_of(assigned[2])
        elif _OPTION.fullmatch(word):
            name = word.lstrip("-")
            value = value_of(rest.pop(0)) if rest and _is_value(rest[0]) else True
        else:
            place += 1
            name, value = f"#{place}", value_of(word)
        times = 1
        while (named := name if times == 1 else f"{name} ({times})") in found:
            times += 1
        found[named] = value
    return found


def value_of(text: str) -> str | float:
    """Return a number if a text is one and nothing of it is lost."""
    if _NUMBER.fullmatch(text) is None or len(text) > _MOST_DIGITS + 8:
        return text
    number = float(text)
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() and abs(number) < 10**_MOST_DIGITS else number


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NUMBER.fullmatch(word) is not None
