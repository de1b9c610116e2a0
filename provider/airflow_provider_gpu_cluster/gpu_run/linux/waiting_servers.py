"""
Servers that wait for somebody to connect, as the kernel shows it: a main thread that waits on a listening TCP socket.

Other threads do not count: the store of ``torch.distributed`` listens in one, beside a program that may hang.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Iterable

_LISTEN = "0A"
_SOCKET = re.compile(r"socket:\[(\d+)\]")
# Functions of the kernel in which a thread waits for events of its open files.
_WAITS = ("accept", "poll", "select")


def is_waiting_server(pid: int) -> bool:
    """Return whether a process is one."""
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
            where = file.read()
        if not any(word in where for word in _WAITS):
            return False
        return not _listening(pid).isdisjoint(_sockets(pid))
    except OSError:
        return False


def _listening(pid: int) -> set[str]:
    """Return the inodes of the listening sockets in the network of a process."""
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
            rows = (line.split() for line in file)
            found.update(row[9] for row in rows if len(row) > 9 and row[3] == _LISTEN)
    return found


def _sockets(pid: int) -> Iterable[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            match = _SOCKET.match(os.readlink(f"/proc/{pid}/fd/{fd}"))
            if match:
                yield match.group(1)
