"""The kernel's counts of the processes that it has killed for lack of memory; see cgroups(7) and proc_vmstat(5)."""

from __future__ import annotations

import os
from typing import NamedTuple

from .proc_files import read_text

_VMSTAT = "/proc/vmstat"
# The controller in /proc/self/cgroup, where it is mounted, and its file of events; the last is cgroup v2.
_CGROUPS = (
    ("memory", "/sys/fs/cgroup/memory", "memory.oom_control"),
    ("", "/sys/fs/cgroup", "memory.events"),
    ("", "/sys/fs/cgroup/unified", "memory.events"),
)
_MOST_BYTES = 1 << 16


class MemoryKills(NamedTuple):
    """
    How many processes the kernel has killed.

    :param near: of the control group of this process, which may hold other jobs of its user as well; 0 without one.
    :param anywhere: of the whole host, since boot.
    """

    near: int
    anywhere: int


class MemoryKillCounter:
    """
    Reads these counts.

    :param cgroups: contents of /proc/self/cgroup; None for those of this process.
    """

    def __init__(self, cgroups: str | None = None) -> None:
        self._path = _events_file(read_text("/proc/self/cgroup", _MOST_BYTES) if cgroups is None else cgroups)

    def read(self) -> MemoryKills:
        """Return the counts so far."""
        return MemoryKills(0 if self._path is None else _count(self._path), _count(_VMSTAT))


def _events_file(cgroups: str) -> str | None:
    """Return the file of events of the nearest control group that counts them; None when there is none."""
    groups = {}
    for line in cgroups.splitlines():
        for controller in line.split(":", 2)[1].split(",") if line.count(":") > 1 else ():
            groups[controller] = line.split(":", 2)[2]
    for controller, mount, name in _CGROUPS:
        # In a container, the path may be that of the host, of which only the container's own part is mounted.
        group = groups.get(controller)
        while group:
            path = os.path.join(mount, group.lstrip("/"), name)
            if os.path.isfile(path):
                return path
            group = os.path.dirname(group) if group != "/" else ""
    return None


def _count(path: str) -> int:
    for line in read_text(path, _MOST_BYTES).splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.strip().isdigit():
            return int(number)
    return 0
