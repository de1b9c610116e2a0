"""Moments as people write them: ``30d``, which is so long ago, ``2026-11``, ``2026-11-28``, or a date with a time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from . import durations

VALID = "a moment such as 30d (so long ago), 2026-11, 2026-11-28 or 2026-11-28T12:00:00+01:00"


def moment_of(text: str, now: datetime) -> datetime:
    """
    Return a moment, in UTC.

    :param text: a date without a time is its first moment; without a time zone, it is in UTC.
    :param now: with its time zone.
    :raises ValueError: it is no moment.
    """
    text = text.strip()
    try:
        if text[-1:].lower() in ("d", "h", "m", "s"):
            return in_utc(now - timedelta(seconds=durations.seconds_of(text)))
        if len(text) == len("2026-11"):
            text += "-01"
        # Before Python 3.11, a Z is no time zone.
        return in_utc(datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not {VALID}") from None


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; one without a time zone is in UTC already."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
