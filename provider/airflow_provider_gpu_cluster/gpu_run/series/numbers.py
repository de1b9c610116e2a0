"""The numbers in a line of PROGRESS_FILE. Whatever a job has written, nothing here raises or takes long."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Iterator

from ..store.acts import cleaned

MOST_CHARACTERS = 100
# Nested more deeply, or longer, than anything that somebody would want to see as a curve.
_MOST_BRACKETS = 20_000
_DEEPEST = 8
_MOST_OF_A_LIST = 16
# To parse a number of a million digits takes seconds.
_LONG_NUMBER = re.compile(rb"[0-9]{400}")
# Names by which programs and frameworks say when a line was written, where they do.
_MOMENTS = ("time", "timestamp", "_timestamp", "wall_time", "ts")
_EARLIEST_S = 1e9


def object_in(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None for anything else."""
    if line.count(b"{") + line.count(b"[") > _MOST_BRACKETS or _LONG_NUMBER.search(line):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def numbers_in(value: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """
    Return the numbers of an object with their names.

    In ``{"train": {"loss": 1}, "lr": [2]}`` these are ``train/loss`` and ``lr/0``. Of a list the first 16 count.
    """
    return _numbers("", value, _DEEPEST)


def _numbers(name: str, value: Any, depth: int) -> Iterator[tuple[str, float]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:_MOST_OF_A_LIST])
    for part, item in items:
        if isinstance(item, (int, float)):
            if item is not True and item is not False:
                yield f"{name}{part}", _float(item)
        elif isinstance(item, (dict, list)) and depth:
            yield from _numbers(f"{name}{part}/", item, depth - 1)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def shown_name(name: str) -> str:
    """Return a name in one line, without what turns lines around, cut to a length."""
    return cleaned(name, MOST_CHARACTERS).encode("utf-8", "replace").decode()


def moment_in(value: dict[str, Any], now_s: float) -> float | None:
    """
    Return when the line says it was written, in seconds since the epoch; None if it does not.

    A time of day without its zone is left out, as nobody knows which zone the job meant.
    """
    for name in _MOMENTS:
        told = value.get(name)
        moment: float | None = None
        if isinstance(told, str) and len(told) < 40:
            moment = _moment_of_text(told)
        elif isinstance(told, (int, float)) and not isinstance(told, bool):
            number = _float(told)
            # Some count milliseconds.
            moment = number / 1000 if number > 1e11 else number
        if moment is not None and _EARLIEST_S < moment < now_s + 86400:
            return moment
    return None


def _moment_of_text(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None
