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
    path = os.fsencode(folder)
    spared = {os.getpid(), os.getppid()}
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in spared:
            try:
                if process.stat().st_uid == os.getuid() and any(_in(path, text) for text in _texts(process)):
                    found.append(int(process.name))
            except OSError:
                continue  # it has ended, or it is not ours to look at
    return found


def _texts(process: Path) -> list[bytes]:
    arguments = (process / "cmdline").read_bytes().split(b"\0")
    values = [entry.partition(b"=")[2] for entry in (process / "environ").read_bytes().split(b"\0")]
    return [*arguments, *values, os.fsencode((process / "cwd").readlink())]


def _in(folder: bytes, text: bytes) -> bool:
    return text == folder or text.startswith(folder + b"/")
