"""Finding and ending what a sandbox has started, however detached it is."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_PATIENCE_S = 5.0


def marker(folder: Path) -> str:
    """Return the environment entry, ``NAME=value``, that every process of a sandbox inherits."""
    return f"GPU_CLUSTER_SANDBOX={folder}"


def find(entry: str) -> list[int]:
    """Return the ids of this user's processes that have ``entry`` in their environment."""
    wanted = os.fsencode(entry)
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if folder.stat().st_uid == os.getuid() and wanted in _entries(folder / "environ"):
                    found.append(int(folder.name))
            except OSError:
                continue  # it has ended, or it is not ours to look at
    return found


def _entries(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\0")


def kill_all(entry: str) -> None:
    """Kill those processes and whatever they start meanwhile, and return when they are gone."""
    deadline = time.monotonic() + _PATIENCE_S
    while (pids := find(entry)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
