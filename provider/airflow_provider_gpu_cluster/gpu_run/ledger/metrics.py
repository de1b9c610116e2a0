"""The final numbers of a job: those in its ``outputs/metrics.json``, as far as they fit into a line."""

from __future__ import annotations

import json
import math
import os

from ..linux import regular_files

_MOST_BYTES = 1 << 20
_MOST_NUMBERS = 50
_MOST_CHARACTERS = 100


def final_metrics(path: str, *, since: str, until: str) -> dict[str, float]:
    """
    Return the numbers that an attempt has left, by their names.

    :param path: of the file, in which there may be anything.
    :param since: path of a file that was written before the attempt began; what is older is of an earlier attempt.
    :param until: path of a file that was written when it had ended; what is newer is of a later attempt.
    """
    try:
        written = os.stat(path).st_mtime
        if not _time(since, 0.0) <= written <= _time(until, math.inf):
            return {}
        values = json.loads(regular_files.read(path, _MOST_BYTES, follow=True))
    except (OSError, ValueError, RecursionError):
        return {}
    found: dict[str, float] = {}
    for name, value in values.items() if isinstance(values, dict) else ():
        if len(found) < _MOST_NUMBERS and len(name) <= _MOST_CHARACTERS and _is_number(value):
            found[name] = value
    return found


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _time(path: str, otherwise: float) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return otherwise
