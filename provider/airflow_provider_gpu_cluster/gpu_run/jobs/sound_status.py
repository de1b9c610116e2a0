"""
Leave out of a status what is not of its type.

Jobs can write to the records that a status is made of, and one that makes no sense must not keep a reader from the
statuses of the other jobs.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, cast

from .. import protocol
from ..protocol.placement import MARKS

if TYPE_CHECKING:
    from ..protocol.status import Status

_MOST_CHARACTERS = 20000
_LARGEST = 1 << 63


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_element(value: object) -> bool:
    """Return whether it is the state of an element, and its reason or None."""
    return isinstance(value, list) and len(value) == 2 and _is_text(value[0]) and _is_text(value[1] or "")


def _is_count_by_name(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and _is_whole(count) for name, count in value.items())


def _is_use(value: object) -> bool:
    """Return whether it is an object of numbers, but for the values that are texts, and the list of the GPUs."""
    return isinstance(value, dict) and all(
        _list_of(_is_use)(one) if name == "gpus" else _is_text(one) if name in _TEXTS_OF_USE else _is_number(one)
        for name, one in value.items()
    )


def _is_past_attempt(value: object) -> bool:
    return isinstance(value, dict) and all(
        name in _OF_PAST_ATTEMPTS and (one is None or _CHECKS[name](one)) for name, one in value.items()
    )


_TEXTS_OF_USE = ("source", "why_not", "key", "host", "level", "since", "on_idle")
_OF_PAST_ATTEMPTS = (
    "attempt",
    "reason",
    "kind",
    "message",
    "started_at",
    "ended_at",
    "host",
    "exit_code",
    "gpu_seconds",
    "checkpoint",
    "line",
    "conn_id",
)
_CHECKS: dict[str, Callable[[object], bool]] = {
    "job_id": _is_text,
    "state": _is_text,
    "reason": lambda value: value in protocol.REASONS,
    "kind": _is_text,
    "message": _is_text,
    "remedy": _is_text,
    "checkpoint": _is_text,
    "line": _is_text,
    "conn_id": _is_text,
    "attempts": _list_of(_is_past_attempt),
    "recovered": _is_count_by_name,
    "orphan_timeout_s": _is_number,
    "exit_code": _is_whole,
    "signal": _is_whole,
    "attempt": _is_whole,
    "log_attempt": _is_whole,
    "submitted_at": _is_time,
    "leased_at": _is_time,
    "started_at": _is_time,
    "ended_at": _is_time,
    "released_at": _is_time,
    "gpus": _list_of(_is_whole),
    "gpu_keys": _list_of(_is_text),
    "gpu_seconds": _is_number,
    "peak_memory_bytes": _is_whole,
    "memory_limit_bytes": _is_whole,
    "queue_place": _is_whole,
    "expected_start": _is_time,
    "progress": lambda value: isinstance(value, dict),
    "usage": _is_use,
    "seconds": _is_use,
    "idle": _is_use,
    "asked": _is_use,
    "host": _is_text,
    "pid": _is_whole,
    "log_bytes": _is_whole,
    "log_tail": _is_text,
    "elements": _list_of(_is_element),
    "notes": _list_of(_is_text),
    "placement": lambda value: value in MARKS,
    "moved_to": _is_text,
    # They were checked when they were read.
    "masks": lambda value: isinstance(value, dict),
}
# No reader expects them to be missing.
_NEVER_NONE = (
    "job_id",
    "state",
    "message",
    "remedy",
    "attempt",
    "log_attempt",
    "attempts",
    "recovered",
    "usage",
    "seconds",
    "asked",
    "gpus",
    "log_bytes",
    "log_tail",
    "elements",
    "notes",
    "placement",
    "moved_to",
)


def sound(status: Status) -> Status:
    """Return a status without what has the wrong type, or no place in a status."""
    values = cast("dict[str, Any]", status)
    kept = {name: value for name, value in values.items() if _is_sound(name, value)}
    if "message" in kept:
        kept["message"] = kept["message"][:_MOST_CHARACTERS]
    return cast("Status", kept)


def _is_sound(name: str, value: object) -> bool:
    check = _CHECKS.get(name)
    if check is None:
        return False
    return name not in _NEVER_NONE if value is None else check(value)
