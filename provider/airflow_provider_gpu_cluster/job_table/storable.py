"""Values as every database takes them: what jobs write may be anything."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.jobs.metrics import storable

MOST_JSON_CHARACTERS = 16_000
_MOST_DEPTH = 8
_MOST_NAMES = 200
_MOST_TEXT = 2000
_LARGEST_INTEGER = 1 << 63
_LARGEST_NUMBER = 1e15
_EARLIEST = datetime(1980, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(2999, 1, 1, tzinfo=timezone.utc)


def text(value: object, most: int) -> str | None:
    """Return a text that fits into a column; None for an empty one, and for what is no text."""
    if not isinstance(value, str):
        return None
    return cleaned(value[:most]).encode("utf-8", "replace").decode("utf-8") or None


def count(value: object) -> int | None:
    """Return a number of things, if it is one."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    return value if is_count and isinstance(value, int) else None


def number(value: object) -> float | None:
    """Return a number of seconds, if it is one that can be added to others."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and isinstance(value, (int, float)) and 0 <= value < _LARGEST_NUMBER else None


def moment(value: object) -> datetime | None:
    """Return a time that a record tells, to the millisecond, as ledgers do; None if no job can be of it."""
    try:
        told = datetime.fromisoformat(value) if isinstance(value, str) else None
        if told is not None and told.tzinfo is not None and _EARLIEST <= told < _LATEST:
            return told.astimezone(timezone.utc).replace(microsecond=told.microsecond // 1000 * 1000)
    except (ValueError, OverflowError):
        pass
    return None


def json_object(value: object, most_characters: int = MOST_JSON_CHARACTERS) -> dict[str, Any] | None:
    """
    Return an object of JSON as every database stores it; None for anything else.

    Of one that is too large, the first names are kept that fit.
    """
    if not isinstance(value, dict):
        return None
    found: dict[str, Any] = {}
    left = most_characters
    for name, item in list(value.items())[:_MOST_NAMES]:
        sound = _sound(item, _MOST_DEPTH)
        key = _text(str(name))[:250]
        size = len(json.dumps(key)) + len(json.dumps(sound)) + 4
        if size <= left:
            found[key] = sound
            left -= size
    return found


def _sound(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value[:_MOST_TEXT])
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGEST_INTEGER else _text(hex(value)[:_MOST_TEXT])
    if isinstance(value, float):
        return storable(value)
    if depth and isinstance(value, dict):
        return {_text(str(name))[:250]: _sound(item, depth - 1) for name, item in list(value.items())[:_MOST_NAMES]}
    if depth and isinstance(value, (list, tuple)):
        return [_sound(item, depth - 1) for item in value[:_MOST_NAMES]]
    return "…"


def _text(value: str) -> str:
    """Return a text without what PostgreSQL has no place for, in a column or in JSON."""
    return value.replace("\x00", "�").encode("utf-8", "replace").decode("utf-8")
