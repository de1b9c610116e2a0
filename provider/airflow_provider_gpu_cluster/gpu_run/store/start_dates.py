"""
The last moment at which an attempt may start, by two clocks: the one that people set, and the one that nobody sets.

It has passed as soon as one of them says so. So whoever sets the clock of a host back gives no attempt more time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..linux import processes

if TYPE_CHECKING:
    from ..protocol.notes import StartBy


def start_date(at: float) -> StartBy:
    """
    Return a moment by the clocks of this host.

    :param at: in seconds since the epoch.
    """
    return {
        "at": at,
        "boottime": _boottime() + at - time.time(),
        "boot": processes.boot_id(),
        "host": processes.hostname(),
    }


def is_past(date: StartBy, *, is_here: bool = False) -> bool:
    """
    Return whether a moment is over.

    :param is_here: whether it was certainly noted on this host, whatever that is called by now. Then a reboot since
        has made an end to it, as nobody knows how long that took.
    """
    if time.time() > date["at"]:
        return True
    if date["boot"] == processes.boot_id():
        return _boottime() > date["boottime"]
    return is_here or date["host"] == processes.hostname()


def is_later(date: StartBy, other: StartBy) -> bool:
    """Return whether a moment is later than another, even if the clock was set between the notes of the two."""
    name = "boottime" if date["boot"] == other["boot"] else "at"
    return bool(date[name] > other[name])  # type: ignore[literal-required]


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
