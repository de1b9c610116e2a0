"""``idle.json`` of an attempt: that its job leaves its GPUs idle. Its sampler writes it, and takes it away."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from ..protocol.idle_policy import CANCEL, HALF, WARN, WHOLE
from . import records

if TYPE_CHECKING:
    from ..protocol.usage import IdleNote

IDLE = "idle.json"
_MOST_BYTES = 1 << 12
_NUMBERS = ("idle_s", "percent", "min_percent", "window_s")


def note_idle(attempt: str, note: IdleNote | None) -> None:
    """
    Write the note of an attempt, or take it away.

    :param attempt: the attempt's folder.
    """
    path = os.path.join(attempt, IDLE)
    with contextlib.suppress(OSError):
        if note is None:
            os.unlink(path)
        else:
            records.write_json(path, note, sync=False)


def idle_note(attempt: str) -> IdleNote | None:
    """Return the note of an attempt; None when its job is not idle, or has spoilt the note."""
    path = os.path.join(attempt, IDLE)
    # There seldom is one, and this is asked all the time.
    if not os.access(path, os.F_OK):
        return None
    found: Any = None
    with contextlib.suppress(OSError, ValueError):
        found = records.read_json(path, _MOST_BYTES)
    if found is None or not _is_sound(found):
        return None
    note: IdleNote = {
        "level": found["level"],
        "since": found["since"],
        "idle_s": found["idle_s"],
        "percent": found["percent"],
        "min_percent": found["min_percent"],
        "window_s": found["window_s"],
        "on_idle": found["on_idle"],
    }
    return note


def _is_sound(found: dict[str, Any]) -> bool:
    is_counted = all(isinstance(found.get(name), (int, float)) and 0 <= found[name] < float("inf") for name in _NUMBERS)
    is_known = found.get("level") in (HALF, WHOLE) and found.get("on_idle") in (WARN, CANCEL)
    return is_counted and is_known and isinstance(found.get("since"), str)
