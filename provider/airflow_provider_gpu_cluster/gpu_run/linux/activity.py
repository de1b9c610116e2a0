"""What processes have used and done so far, as the kernel counts it; see proc(5)."""

from __future__ import annotations

import os
from typing import Iterable, NamedTuple

from .proc_files import stat_fields

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOPPED = ("T", "t")
_COUNTED = ("wchar", "read_bytes")


class Activity(NamedTuple):
    """
    The sums over some processes.

    :param cpu_s: processor time, with that of children that have ended, in seconds.
    :param io_bytes: what they have written, to anything, and read from disks.
    :param is_stopped: whether one of them is stopped, or traced by a debugger.
    """

    cpu_s: float
    io_bytes: int
    is_stopped: bool


def activity(pids: Iterable[int]) -> Activity:
    """Return what these processes have used and done so far."""
    cpu, io, is_stopped = 0, 0, False
    for pid in pids:
        fields = stat_fields(pid)
        if len(fields) > 14:
            cpu += sum(int(field) for field in fields[11:15])
            is_stopped = is_stopped or fields[0] in _STOPPED
            io += _io_bytes(pid)
    return Activity(cpu / _TICKS_PER_S, io, is_stopped)


def _io_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            rows = dict(line.split(": ") for line in file)
        return sum(int(rows[name]) for name in _COUNTED)
    except (OSError, KeyError, ValueError):
        return 0
