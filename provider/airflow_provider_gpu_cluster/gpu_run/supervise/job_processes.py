"""The processes of a job: all those below this one, which is a subreaper (prctl(2))."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from typing import Callable, Mapping, Sequence

from ..linux import processes

_LEFTOVER_GRACE_S = 2.0
_KILL_TIMEOUT_S = 10.0


class JobProcesses:
    """Starts the job's first process, waits for all of them, and ends those that are left."""

    def __init__(self) -> None:
        #: The process that was started.
        self.top = 0
        #: Its exit status, as waitpid(2) gives it; None while it runs.
        self.status: int | None = None
        #: The exit statuses of those processes whose key is here.
        self.ends: dict[int, int | None] = {}
        #: The most memory that a process has used that has ended; this covers what grew and ended between two looks.
        self.peak_memory = 0

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        out: int | None,
        errors: int | None,
        umask: int,
    ) -> None:
        """
        Start the job's first process.

        :param out: open file for its output; None for that of this process.
        :param errors: likewise for its errors.
        :param umask: of the user's login; gpu-run's own files are private.
        :raises OSError: it cannot be started.
        """
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            # If guard and supervisor are killed together, at least this process dies with them.
            preexec_fn=partial(_become_job, umask),
        )
        self.top = process.pid
        # This class waits for the process, together with everything else that ends below this one.
        process.returncode = 0

    def reap(self) -> bool:
        """Reap children that have ended; return False when none are left, which the kernel knows for sure."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.peak_memory = max(self.peak_memory, usage.ru_maxrss * 1024)
            if pid in self.ends:
                self.ends[pid] = status
            if pid == self.top:
                self.status = status

    def reap_top(self) -> None:
        """Wait for the process that was started, which ends now."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while self.status is None and self.reap() and time.monotonic() < deadline:
            time.sleep(0.005)

    def tree(self) -> set[int]:
        """Return all processes of the job."""
        return processes.descendants(os.getpid())

    def tops(self) -> list[int]:
        """Return the process that was started, or, if that has ended, those that have lost their parents."""
        return [self.top] if self.status is None else processes.children_of(os.getpid())

    def end_leftovers(self, meanwhile: Callable[[], object]) -> None:
        """
        End what is left: a TERM first, and a KILL to what does not heed it.

        :param meanwhile: called again and again while it waits.
        """
        left = self.tree()
        processes.send_signal(left, signal.SIGTERM)
        # A stopped process does not handle a TERM.
        processes.send_signal(left, signal.SIGCONT)
        deadline = time.monotonic() + _LEFTOVER_GRACE_S
        while self.reap() and time.monotonic() < deadline:
            meanwhile()
            time.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """Kill every process of the job."""
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while self.reap() and time.monotonic() < deadline:
            processes.send_signal(self.tree(), signal.SIGKILL)
            time.sleep(0.01)


def _become_job(umask: int) -> None:
    processes.die_with_parent(signal.SIGKILL)
    os.umask(umask)
