"""Durations as people write them: ``14d``, ``36h``, ``90m``, or a number of seconds."""

from __future__ import annotations

import math
import re

VALID = "a duration such as 14d, 36h, 90m, or a number of seconds, more than 0"
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([dhms]?)\Z")


def seconds_of(value: object) -> float:
    """
    Return a duration in seconds.

    :raises ValueError: it is not a duration.
    """
    text = f"{value:f}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
    match = _DURATION.match(text.strip().lower())
    seconds = float(match.group(1)) * _UNITS[match.group(2)] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{value!r} is not {VALID}")
    return seconds
