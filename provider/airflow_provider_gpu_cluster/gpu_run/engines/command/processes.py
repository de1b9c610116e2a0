"""Which processes exist, by ``ps``: one call for all of them per interval, however many jobs wait."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Sequence

from ...linux import processes

if TYPE_CHECKING:
    from ...protocol.records import ProcessIdentity

_TIMEOUT_S = 10.0
_LINE = re.compile(r"^\s*(\d+)\s+(\S+)\s*$")
# An argument can be 128 KiB long.
_MOST_IN_ARGUMENT = 1000
_GONE = ("Z", "X")


class Processes:
    """
    The last answer of ``ps``.

    :param interval_s: how often ``ps`` may be called.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._asked = float("-inf")
        self._alive: set[int] = set()
        #: When ``ps`` was called for its last answer, in seconds since the epoch; later events are unknown.
        self.told_at = 0.0
        #: Why ``ps`` has not answered since.
        self.trouble = ""

    def is_due(self) -> bool:
        """Return whether ``ps`` may be called again."""
        return time.monotonic() >= self._asked + self._interval_s

    def look(self, pids: Sequence[int]) -> None:
        """Ask ``ps`` about processes."""
        self._asked = time.monotonic()
        asked_at = time.time()
        try:
            self._alive = alive(pids)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.trouble = _said(error)
        else:
            self.told_at, self.trouble = asked_at, ""

    def is_alive(self, process: ProcessIdentity) -> bool:
        """
        Return whether the process of that identity existed.

        :param process: a process of this host that existed before the last answer.
        """
        if process["boot"] != processes.boot_id() or process["pid"] not in self._alive:
            return False
        try:
            start = processes.start_ticks(process["pid"])
        except OSError:
            return True
        # The system reuses process ids. If ps shows a process that the kernel does not, trust ps.
        return start is None or process["start"] is None or start == process["start"]


def alive(pids: Sequence[int]) -> set[int]:
    """
    Return which of these processes exist.

    :raises ValueError: the answer of ``ps`` cannot be trusted.
    """
    # Ask also about this process, which certainly exists, to tell an answer from none.
    wanted = sorted({*pids, os.getpid()})
    command = ["ps"]
    for first in range(0, len(wanted), _MOST_IN_ARGUMENT):
        command += ["-p", ",".join(map(str, wanted[first : first + _MOST_IN_ARGUMENT]))]
    done = subprocess.run(
        [*command, "-o", "pid=,stat="],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_S,
        env=dict(os.environ, LC_ALL="C"),
    )
    found = set()
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        match = _LINE.match(line)
        if match and not match.group(2).startswith(_GONE):
            found.add(int(match.group(1)))
    if done.returncode != 0 or os.getpid() not in found:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"it ended with exit code {done.returncode}" + (f": {said[-1]}" if said else ""))
    return found


def _said(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no ps in PATH"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"ps gave no answer in {_TIMEOUT_S:g} s"
    return f"ps fails: {error}"
