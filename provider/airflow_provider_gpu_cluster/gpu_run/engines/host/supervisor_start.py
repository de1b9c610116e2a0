"""
Start the supervisor of an attempt, with its leases as open files.

Where possible, the supervisor is a copy of the process that starts it, which costs a fraction of a new Python.
"""

from __future__ import annotations

import contextlib
import ctypes  # noqa: F401  (each copy needs it)
import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Union

from ...linux import detached, processes
from ...store import records
from ...store.directories import Attempt, Root
from ...store.next_attempt import follow
from ...store.settling import settle
from ...supervise.allocation import Allocation
from ...supervise.supervisor import supervise
from .root_queue import RootQueue

if TYPE_CHECKING:
    from ...protocol.notes import Lease


_LINES_S = 10.0


class Copy:
    """A copy of this process that does something else, with the methods of :class:`subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._has_ended = False

    def poll(self) -> int | None:
        """Return None while it runs."""
        self._has_ended = self._has_ended or os.waitpid(self._pid, os.WNOHANG)[0] != 0
        return 0 if self._has_ended else None


Process = Union[Copy, "subprocess.Popen[bytes]"]


def start(program: str, attempt: Attempt, lease: Lease, *, running: str) -> Process:
    """
    Start a supervisor in a process of its own, and return the process.

    :param program: path of the program that the attempt was submitted with.
    :param running: path of the program that this process runs.
    :raises OSError: it cannot be started now.
    """
    with records.log_file(attempt.at("supervisor.log")) as log:
        if program != running:
            return _start_program(program, attempt, lease, log)
        return Copy(processes.start_copy(partial(_supervise_in_copy, program, attempt, lease, log.fileno())))


def supervise_leased(path: str, *, program: str) -> int:
    """
    Supervise an attempt to its end; its lease arrives on standard input.

    :param path: the attempt's folder.
    """
    run(program, Attempt.at_path(path), json.load(sys.stdin))
    return 0


def run(program: str, attempt: Attempt, lease: Lease) -> None:
    """Supervise an attempt to its end."""
    settings = attempt.request()["settings"]
    supervise(attempt, Allocation(lease["gpus"], lease["leased_at"], lease["fds"]))
    queue = RootQueue(Root(os.path.dirname(attempt.job.path)), settings)
    following = follow(attempt.job)
    if following is not None:
        queue.add(following, following.request())
    # The GPUs are free now; a job that waits for them must not wait until somebody asks about it.
    queue.ensure_dispatcher(program)
    # When many jobs end at once, their supervisors do not wait for each other's lines as long as they hold GPUs.
    settle(attempt.job, wait_s=_LINES_S)


def _start_program(program: str, attempt: Attempt, lease: Lease, log: BinaryIO) -> subprocess.Popen[bytes]:
    command = detached.own_command(program, "supervise", attempt.path)
    process = detached.start_detached(command, stdin=subprocess.PIPE, out=log, pass_fds=lease["fds"])
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(lease).encode())
    return process


def _supervise_in_copy(program: str, attempt: Attempt, lease: Lease, log: int) -> None:
    detached.detach(log, keep=lease["fds"])
    processes.rename(program, "supervise", attempt.job.job_id)
    run(program, attempt, lease)
