"""
Processes that go on when the process that started them ends, or its connection breaks.

Each has a session of its own, so that no hang-up reaches it, and no open files but those it is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO, Sequence

from . import processes


def own_command(program: str, verb: str, *arguments: str) -> list[str]:
    """Return the command that runs a verb of this program, with the interpreter of this process."""
    return [sys.executable, "-I", "-S", program, verb, *arguments]


def start_detached(
    command: Sequence[str],
    *,
    out: IO[bytes],
    errors: IO[bytes] | None = None,
    stdin: int = subprocess.DEVNULL,
    cwd: str = "/",
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """
    Start a process that goes on when this one ends.

    :param out: open file for its output.
    :param errors: open file for its errors; None for the same file.
    :param pass_fds: open files that it inherits.
    :raises OSError: it cannot be started.
    """
    return subprocess.Popen(
        command,
        cwd=cwd,
        stdin=stdin,
        stdout=out,
        stderr=out if errors is None else errors,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def leave(process: subprocess.Popen[bytes]) -> None:
    """Stop waiting for a process, as it outlives this one."""
    # Without this, Popen would warn that it still runs.
    process.returncode = 0


def detach(log: int, *, keep: Sequence[int]) -> None:
    """
    Let this process, a copy of another, go on when that one ends.

    :param log: open file for its output.
    :param keep: other open files that it keeps.
    """
    os.setsid()
    os.chdir("/")
    for fd in (1, 2):
        os.dup2(log, fd)
    processes.close_files(keep=(1, 2, *keep))
