"""Which processes there are, as ``ps`` says: one question about all of them per interval, however many jobs wait."""

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
    What ``ps`` has last answered.

    :param interval_s: how often it may be asked.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._asked = float("-inf")
        self._alive: set[int] = set()
        #: When it was asked what it has answered, in seconds since the epoch; what happened later, nobody knows.
        self.told_at = 0.0
        #: Why it has not answered since.
        self.trouble = ""

    def is_due(self) -> bool:
        """Return whether it may be asked again."""
        return time.monotonic() >= self._asked + self._interval_s

    def look(self, pids: Sequence[int]) -> None:
        """Ask about processes."""
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
        Return whether the process of that identity was there.

        :param process: a process of this host that was there before the last answer.
        """
        if process["boot"] != processes.boot_id() or process["pid"] not in self._alive:
            return False
        start = processes.start_ticks(process["pid"])
        # A number is given out again. What ps shows and the kernel does not, ps knows in its own way.
        return start is None or process["start"] is None or start == process["start"]


def alive(pids: Sequence[int]) -> set[int]:
    """
    Return which of these processes there are.

    :raises ValueError: ``ps`` cannot be believed.
    """
    # Asked about as well is one that is there for sure, so that no answer is not taken for one.
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
