"""The GPU-hours of each of the last hours."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Iterable

from ..protocol.ledger import END

if TYPE_CHECKING:
    from ..protocol.overview import HourOfUse
    from .ledger import Ledger

_HOUR_S = 3600.0
# The end of a month's file that is read: some thousand ends of attempts. Hours before those are not told.
_MOST_BYTES = 1 << 21
# A job that began more than this before its end would be one with a broken clock.
_LONGEST_S = 400 * 86400.0


def hours_of_use(ledger: Ledger, now: str, hours: int, running: Iterable[tuple[str, int]] = ()) -> list[HourOfUse]:
    """
    Return the use of the last hours, oldest first; the last of them is not over.

    :param now: in the form of all records.
    :param hours: how many.
    :param running: since when each job runs that has not ended, and on how many GPUs.
    """
    at = _moment(now)
    begin = at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    leased, measured, used = [0.0] * hours, [0.0] * hours, [0.0] * hours
    for line in _ends(ledger, begin, at):
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            end = _moment(line["at"])
            start = end - timedelta(seconds=min(_LONGEST_S, max(0.0, float(line["leased_s"]))))
            used_s = line.get("used_gpu_seconds")
            share = None if used_s is None else min(1.0, float(used_s) / max(1e-9, float(line["gpu_seconds"])))
            for hour, gpu_hours in _spread((start - begin).total_seconds(), (end - begin).total_seconds(), hours):
                gpu_hours *= int(line["gpus"])
                leased[hour] += gpu_hours
                if share is not None:
                    measured[hour] += gpu_hours
                    used[hour] += gpu_hours * share
    for since, gpus in running:
        with contextlib.suppress(ValueError, OverflowError):
            for hour, gpu_hours in _spread(
                (_moment(since) - begin).total_seconds(), (at - begin).total_seconds(), hours
            ):
                leased[hour] += gpu_hours * gpus
    return [
        {
            "begins_at": (begin + timedelta(hours=hour)).isoformat(timespec="seconds"),
            "gpu_hours": round(leased[hour], 4),
            "measured_gpu_hours": round(measured[hour], 4),
            "used_gpu_hours": round(used[hour], 4),
        }
        for hour in range(hours)
    ]


def _spread(start_s: float, end_s: float, hours: int) -> Iterable[tuple[int, float]]:
    """Yield how many hours of a time lie in each of the hours that begin at 0."""
    for hour in range(max(0, int(start_s // _HOUR_S)), min(hours, int(end_s // _HOUR_S) + 1)):
        seconds = min(end_s, (hour + 1) * _HOUR_S) - max(start_s, hour * _HOUR_S)
        if seconds > 0:
            yield hour, seconds / _HOUR_S


def _ends(ledger: Ledger, begin: datetime, at: datetime) -> Iterable[dict[str, Any]]:
    """Yield the lines of attempts that have ended since a moment; an attempt in one hour may have begun in another."""
    for name in ledger.months():
        if name[:7] < begin.strftime("%Y-%m"):
            continue
        size = os.stat(os.path.join(ledger.folder, name)).st_size
        for _, line in ledger.lines_from(name, max(0, size - _MOST_BYTES), (END,)):
            yield line


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(timezone.utc)
