"""What the processes below one of them use of a host: processor time, memory, and what they write; see proc(5)."""

from __future__ import annotations

import os
from typing import Iterable, NamedTuple

from . import processes
from .proc_files import read_text, stat_fields

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Places in /proc/<pid>/stat after the command name.
_OWN_TIMES = slice(11, 13)
_CHILDREN_TIMES = slice(13, 15)
_RESIDENT = 21
_WRITTEN = b"wchar: "
_MOST_BYTES = 4096
_STOPPED = ("T", "t")


class TreeUse(NamedTuple):
    """
    The sums over these processes, and over those of them that have ended.

    :param cpu_s: processor time so far, in seconds.
    :param written_bytes: what they have written so far, to anything; None where the kernel does not tell it.
    :param is_stopped: whether one of them is stopped, or traced by a debugger.
    :param sizes: the resident sizes of those that live, by process.
    """

    cpu_s: float
    written_bytes: int | None
    is_stopped: bool
    sizes: dict[int, int]


def use_below(root: int) -> TreeUse:
    """
    Return what the processes below ``root`` have used, without that process.

    A process that has ended, and was waited for, is counted by the one that has waited for it. ``root`` is a subreaper
    (prctl(2)), so that those whose parents ended first are waited for by it.
    """
    ticks, is_stopped, sizes = 0, False, {}
    for pid in processes.descendants(root):
        fields = stat_fields(pid)
        if len(fields) > _RESIDENT:
            ticks += _sum(fields[_OWN_TIMES]) + _sum(fields[_CHILDREN_TIMES])
            is_stopped = is_stopped or fields[0] in _STOPPED
            sizes[pid] = int(fields[_RESIDENT]) * _PAGE
    ticks += _sum(stat_fields(root)[_CHILDREN_TIMES])
    return TreeUse(ticks / _TICKS_PER_S, _written_below(root, sizes), is_stopped, sizes)


def written_by_ended(root: int) -> int | None:
    """
    Return what those have written for which a process has waited; None where the kernel does not tell it.

    The kernel adds them to that process as a whole, and not to its first thread. It is the only one of ``root``.
    """
    whole, own = _written(f"/proc/{root}/io"), _written(f"/proc/{root}/task/{root}/io")
    return None if whole is None or own is None else max(0, whole - own)


def usable_cpus(cgroups: str = "/sys/fs/cgroup") -> int:
    """
    Return how many processors this process, and so what it starts, may use: those that it may run on, and no more than
    the time that a container, a service or a scheduler leaves it.

    :param cgroups: where control groups are mounted; see cgroups(7), version 2.
    """
    cpus = len(os.sched_getaffinity(0))
    for line in read_text("/proc/self/cgroup", _MOST_BYTES).splitlines():
        if line.startswith("0::"):
            group = line[3:].strip("/")
            while True:
                quota, _, period = read_text(os.path.join(cgroups, group, "cpu.max"), _MOST_BYTES).partition(" ")
                if quota.isdigit() and period.strip().isdigit() and int(period):
                    cpus = min(cpus, max(1, round(int(quota) / int(period))))
                if not group:
                    break
                group = os.path.dirname(group)
    return cpus


def _written_below(root: int, pids: Iterable[int]) -> int | None:
    ended = written_by_ended(root)
    if ended is None:
        return None
    return ended + sum(_written(f"/proc/{pid}/io") or 0 for pid in pids)


def _written(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            rows = file.read()
    except OSError:
        return None
    start = rows.find(_WRITTEN)
    words = rows[start + len(_WRITTEN) :].split(None, 1) if start >= 0 else []
    return int(words[0]) if words else None


def _sum(fields: Iterable[str]) -> int:
    return sum(map(int, fields))
