"""Ending whatever a test's cluster still runs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.harness.patience import PATIENCE_S


def kill_everything_under(folder: Path) -> None:
    """
    Kill this user's processes that belong to a folder, and return when they are gone.

    A process belongs to it when an argument, a value in its environment or its working directory is a path in
    it.
    """
    deadline = time.monotonic() + PATIENCE_S
    while pids := processes_under(folder):
        assert time.monotonic() < deadline, f"these processes do not die: {pids}"
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def processes_under(folder: Path) -> list[int]:
    """Return the ids of this user's live processes that belong to a folder."""
    # Every test with a cluster ends with this, beside the processes of all others, so it looks as cheaply as it can.
    path = os.fsencode(folder)
    spared = {str(os.getpid()), str(os.getppid())}
    uid = os.getuid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and name not in spared:
            try:
                if os.stat(f"/proc/{name}").st_uid == uid and _is_under(path, name):
                    found.append(int(name))
            except OSError:
                continue  # it has ended, or it is not ours to look at
    return found


def _is_under(folder: bytes, pid: str) -> bool:
    arguments = _read(f"/proc/{pid}/cmdline")
    if folder in arguments and any(_in(folder, argument) for argument in arguments.split(b"\0")):
        return True
    environment = _read(f"/proc/{pid}/environ")
    if folder in environment and any(_in(folder, entry.partition(b"=")[2]) for entry in environment.split(b"\0")):
        return True
    return _in(folder, os.fsencode(os.readlink(f"/proc/{pid}/cwd")))


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def _in(folder: bytes, text: bytes) -> bool:
    return text == folder or text.startswith(folder + b"/")
