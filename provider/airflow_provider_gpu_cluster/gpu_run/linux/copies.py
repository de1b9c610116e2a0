"""Work that is done in copies of this process, a few at a time, each of which writes an answer."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from typing import BinaryIO, Callable, NamedTuple

from . import processes

_PIECE = 1 << 16
# A copy that is being read from is not at its limit.
_READING_S = 5.0


class CopyAnswer(NamedTuple):
    """
    What a copy has written.

    :param key: of the work.
    :param is_late: whether it was ended, as it took too long or wrote too much.
    """

    key: int
    data: bytes
    is_late: bool = False


class _Running:
    def __init__(self, key: int, pid: int, until: float | None) -> None:
        self.key = key
        self.pid = pid
        self.until = until
        self.said = bytearray()


class Copies:
    """
    Does work in copies of this process, which costs less than starting a program.

    :param at_once: how many copies there are at most; other work waits.
    :param limit_s: how long one may take, in seconds; None for no limit.
    :param most_bytes: how much one may write.
    """

    def __init__(self, at_once: int, *, limit_s: float | None = None, most_bytes: int = 1 << 24) -> None:
        self._at_once = at_once
        self._limit_s = limit_s
        self._most_bytes = most_bytes
        self._waiting: dict[int, Callable[[BinaryIO], object]] = {}
        self._running: dict[int, _Running] = {}
        self._ending: set[int] = set()

    def add(self, key: int, work: Callable[[BinaryIO], object]) -> None:
        """
        Accept some work; :meth:`answers` returns what it writes.

        :param key: the caller's name for it.
        :param work: gets the file to write to, may close it before its end, and has no other file of this process.
        """
        self._waiting[key] = work
        self._start()

    @property
    def fds(self) -> list[int]:
        """Open files that become readable when there may be an answer."""
        return list(self._running)

    @property
    def waiting(self) -> int:
        """How much work has not begun."""
        return len(self._waiting)

    def answers(self) -> list[CopyAnswer]:
        """Return the answers that are complete, or will never be."""
        found = []
        for fd, one in list(self._running.items()):
            has_ended, is_late = self._read(fd, one), False
            if not has_ended and (len(one.said) > self._most_bytes or _is_past(one.until)):
                _kill(one.pid)
                has_ended = is_late = True
            if has_ended:
                os.close(fd)
                del self._running[fd]
                self._ending.add(one.pid)
                found.append(CopyAnswer(one.key, bytes(one.said), is_late))
        self._reap()
        self._start()
        return found

    def _read(self, fd: int, one: _Running) -> bool:
        """Read what a copy has written; return whether it has closed its end."""
        while len(one.said) <= self._most_bytes:
            try:
                piece = os.read(fd, _PIECE)
            except BlockingIOError:
                return False
            if not piece:
                return True
            one.said += piece
            if one.until is not None:
                one.until = max(one.until, time.monotonic() + _READING_S)
        return False

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            key, work = next(iter(self._waiting.items()))
            del self._waiting[key]
            fd, far_end = os.pipe()
            pid = processes.start_copy(partial(_work, work, far_end))
            os.close(far_end)
            os.set_blocking(fd, False)
            until = None if self._limit_s is None else time.monotonic() + self._limit_s
            self._running[fd] = _Running(key, pid, until)

    def _reap(self) -> None:
        """Let the system forget the copies that have ended."""
        for pid in list(self._ending):
            with contextlib.suppress(ChildProcessError):
                if not os.waitpid(pid, os.WNOHANG)[0]:
                    continue
            self._ending.remove(pid)


def _work(work: Callable[[BinaryIO], object], answer: int) -> None:
    # What this process talks over must end with it, and not with its copies.
    processes.close_files(keep=(2, answer))
    os.setpgid(0, 0)
    with os.fdopen(answer, "wb") as file:
        work(file)


def _kill(pid: int) -> None:
    """Kill a copy, and the programs that it waits for."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _is_past(until: float | None) -> bool:
    return until is not None and time.monotonic() > until
