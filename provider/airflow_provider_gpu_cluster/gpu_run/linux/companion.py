"""
A copy of this process that works beside it, and that it talks with by lines through two pipes.

Neither ever waits for the other without a limit. The companion hears the end of its pipe when this process ends in
whatever way, and ends then; this process hears it when the companion dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from functools import partial
from typing import Callable

from . import processes

_PIECE = 1 << 16
# More than any line has: who sends more is out of its mind.
_MOST_BYTES = 1 << 22
# Ignored, some of these would repeat a fault for ever.
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)


class Ended(Exception):
    """The other end has closed its pipe."""


class CompanionLine:
    """
    One end of the two pipes.

    :param source: open file to read from.
    :param sink: open file to write to.
    """

    def __init__(self, source: int, sink: int) -> None:
        #: Readable when there is something to hear.
        self.source = source
        self._sink = sink
        self._heard = b""
        os.set_blocking(source, False)
        # What the other end does not read is lost; that end is out of order then.
        os.set_blocking(sink, False)

    def tell(self, text: str) -> None:
        """Send a line, as far as the other end is there."""
        with contextlib.suppress(OSError):
            os.write(self._sink, text.encode() + b"\n")

    def hear(self, timeout_s: float) -> str | None:
        """
        Return the next line; None when there is none in that time.

        :raises Ended: nothing will come any more.
        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._heard:
            left_s = deadline - time.monotonic()
            if not select.select([self.source], [], [], max(0.0, left_s))[0]:
                if left_s <= 0:
                    return None
                continue
            try:
                piece = os.read(self.source, _PIECE)
            except BlockingIOError:
                continue
            except OSError:
                piece = b""
            if not piece or len(self._heard) > _MOST_BYTES:
                raise Ended
            self._heard += piece
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode("utf-8", "replace")

    def close(self) -> None:
        """Close both pipes."""
        for fd in (self.source, self._sink):
            with contextlib.suppress(OSError):
                os.close(fd)


def start_companion(work: Callable[[CompanionLine], object]) -> tuple[int, CompanionLine]:
    """
    Start a copy of this process that does some work, and return its id, and the line to it.

    It keeps no other open file of this process, hears no signals that can be ignored, and is killed when this process
    dies.

    :raises OSError: there is no room for another process now.
    """
    return _start(partial(_work_below, os.getpid(), work))


def start_apart(work: Callable[[CompanionLine], object]) -> tuple[int, CompanionLine]:
    """
    Do the same; but the process is nobody's child, has a session of its own, and goes on until its work is done.

    When this returns, the files of this process are open in no other one.

    :raises OSError: there is no room for another process now.
    """
    pid, line = _start(partial(_leave, work))
    os.waitpid(pid, 0)
    try:
        return int(line.hear(0.0) or ""), line
    except (Ended, ValueError):
        line.close()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None


def _start(work: Callable[[CompanionLine], object]) -> tuple[int, CompanionLine]:
    source, their_sink = os.pipe()
    their_source, sink = os.pipe()
    try:
        pid = processes.start_copy(partial(_in_copy, their_source, their_sink, work))
    except OSError:
        for fd in (source, sink):
            os.close(fd)
        raise
    finally:
        for fd in (their_source, their_sink):
            os.close(fd)
    return pid, CompanionLine(source, sink)


def _in_copy(source: int, sink: int, work: Callable[[CompanionLine], object]) -> None:
    processes.close_files(keep=(source, sink))
    work(CompanionLine(source, sink))


def _leave(work: Callable[[CompanionLine], object], line: CompanionLine) -> None:
    os.setsid()
    os.chdir("/")
    line.tell(str(processes.start_copy(partial(_work_deaf, work, line))))


def _work_below(parent: int, work: Callable[[CompanionLine], object], line: CompanionLine) -> None:
    processes.die_with_parent(signal.SIGKILL)
    if os.getppid() == parent:
        _work_deaf(work, line)


def _work_deaf(work: Callable[[CompanionLine], object], line: CompanionLine) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, *_FAULTS):
            signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGCHLD, *_FAULTS):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    work(line)
