"""
Slurm's answers about all jobs of a user, shared by all processes: one question per interval, however many ask.

An answer lies in a file next to the jobs. A process that finds it too old asks anew; others use it meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple

from ...errors import Refused
from ...linux import locks, processes
from ...store import records
from . import commands, words
from .runner import TIMEOUT_S, run

if TYPE_CHECKING:
    from ...protocol.notes import ViewNote

_LOOK_S = 0.02


class Told(NamedTuple):
    """
    An answer of Slurm.

    :param rows: the jobs, or None when Slurm has not answered.
    :param trouble: why not.
    :param is_off: whether this can never be asked here.
    """

    rows: list[commands.Row] | None
    trouble: str = ""
    is_off: bool = False


class View:
    """
    One question to Slurm, and its last answer.

    :param path: of the file with the answer.
    :param interval_s: how often Slurm may be asked.
    :param timeout_s: how long to wait for an answer. A later answer serves the next process that looks.
    :param ask: asks Slurm about the jobs since a time.
    """

    def __init__(self, path: str, *, interval_s: float, timeout_s: float, ask: Callable[[float], Told]) -> None:
        self._path = path
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._ask = ask
        self._asking: threading.Thread | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._by_folder: dict[str, list[commands.Row]] = {}
        #: When Slurm was last asked, and the start of the time for which its jobs were asked for.
        self.asked_at = self.since = 0.0
        #: When Slurm was asked for its last answer; later events are unknown.
        self.told_at = 0.0
        #: Why Slurm has not answered since.
        self.trouble = ""
        self.is_off = False

    def look(self, since: float = 0.0) -> None:
        """
        Make sure that the answer is no older than the interval, if Slurm answers in time.

        :param since: when the oldest job that matters was submitted.
        """
        self._read()
        if not self._is_due(since):
            return
        deadline = time.monotonic() + self._timeout_s
        if self._asking is None or not self._asking.is_alive():
            fd = self._lock()
            if fd is not None:
                self._read()
                if not self._is_due(since):
                    os.close(fd)
                    return
                self._asking = threading.Thread(target=self._find_out, args=(fd, since), daemon=True)
                self._asking.start()
                self._asking.join(max(0.0, deadline - time.monotonic()))
                self._read()
                return
        # Another process or thread is asking.
        while self._is_due(since) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            self._read()

    def jobs(self, ids: Iterable[str], name: str | None, folder: str) -> list[commands.Row]:
        """
        Return the jobs of that folder; if a name or ids are given, only those.

        An id alone identifies nothing: a controller that has lost its state gives out ids again.
        """
        there = self._by_folder.get(commands.folder_key(folder), ())
        wanted = list(ids)
        return [row for row in there if name in (None, row.name) and (not wanted or row.id in wanted)]

    def named(self, check: Callable[[commands.Row], bool]) -> list[commands.Row]:
        """Return the jobs for which ``check`` is true."""
        return [row for rows in self._by_folder.values() for row in rows if check(row)]

    def _is_due(self, since: float) -> bool:
        is_old = not self.asked_at <= time.time() < self.asked_at + self._interval_s
        return is_old or (since < self.since and not self.is_off)

    def _lock(self) -> int | None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        return locks.lock(f"{self._path}.lock")

    def _find_out(self, fd: int, since: float) -> None:
        """Ask, and write the answer down."""
        with contextlib.suppress(OSError):
            try:
                asked_at = time.time()
                told = self._ask(since)
                answer = self._written() if told.rows is None else {}
                answer.update({"asked_at": asked_at, "trouble": told.trouble, "is_off": told.is_off})
                if told.rows is not None:
                    answer.update({"told_at": asked_at, "since": since, "rows": [list(row) for row in told.rows]})
                records.write_json(self._path, answer)
            finally:
                os.close(fd)

    def _written(self) -> ViewNote:
        answer: ViewNote | None = records.read_json(self._path, records.MOST_BYTES_OF_LISTS)
        return answer or {}

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
        except OSError:
            return
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return
        try:
            answer = self._written()
            rows = [commands.Row(*values) for values in answer.get("rows", ())]
        except (OSError, ValueError, TypeError):
            return
        self._stamp = stamp
        self.asked_at, self.told_at = answer.get("asked_at", 0.0), answer.get("told_at", 0.0)
        self.since = answer.get("since", 0.0)
        self.trouble, self.is_off = answer.get("trouble", ""), answer.get("is_off", False)
        self._by_folder = {}
        for row in rows:
            self._by_folder.setdefault(commands.folder_key(row.folder), []).append(row)


def ask_queue(since: float) -> Told:
    """Ask for the jobs that the controller remembers."""
    answer = run(commands.queue(processes.user()), timeout_s=TIMEOUT_S)
    if answer.code != 0:
        return Told(None, commands.said(answer.errors))
    return Told(commands.queue_rows(answer.output))


def ask_accounting(since: float) -> Told:
    """Ask the accounting for the jobs since a time."""
    try:
        answer = run(commands.accounting(processes.user(), since), timeout_s=TIMEOUT_S)
    except Refused:
        return Told([], is_off=True)
    if words.NO_ACCOUNTING in answer.errors:
        return Told([], is_off=True)
    if answer.code != 0:
        return Told(None, commands.said(answer.errors))
    return Told(commands.accounting_rows(answer.output))
