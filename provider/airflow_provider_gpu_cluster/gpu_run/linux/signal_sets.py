"""What a process does with signals, as the kernel tells it; see proc(5)."""

from __future__ import annotations

from typing import NamedTuple


class SignalSets(NamedTuple):
    """
    The signals of a process, a bit for each.

    :param ignored: those that it ignores.
    :param caught: those for which it has a handler.
    :param blocked: those that wait, until it unblocks them or takes them by sigwait(3) or signalfd(2).
    """

    ignored: int
    caught: int
    blocked: int

    def catches(self, number: int) -> bool:
        """Return whether it does something about a signal itself."""
        return _has(self.caught | self.blocked, number)

    def has_handler(self, number: int) -> bool:
        """Return whether it has a handler for a signal."""
        return _has(self.caught, number)

    def ignores(self, number: int) -> bool:
        """Return whether the signal does nothing."""
        return _has(self.ignored, number)


def signal_sets(pid: int) -> SignalSets | None:
    """Return the signals of a process; None when there is no such process, or it cannot be looked at."""
    found = {}
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("SigIgn", "SigCgt", "SigBlk"):
                    found[name] = int(value, 16)
        return SignalSets(found["SigIgn"], found["SigCgt"], found["SigBlk"])
    except (OSError, KeyError, ValueError):
        return None


def _has(mask: int, number: int) -> bool:
    return bool(mask >> (number - 1) & 1)
