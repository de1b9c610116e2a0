"""The progress of a transfer: a line in the task's log every few seconds, or a bar in a terminal."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from airflow_provider_gpu_cluster.jobs.progress import duration_text

log = logging.getLogger(__name__)

LOG_EVERY_S = 5.0
# Before that, a rate says nothing.
_FIRST_RATE_S = 0.5


class TransferProgress:
    """
    Counts bytes, and shows the progress. :meth:`advance` may be called from several threads.

    ::

        with TransferProgress("upload to me@gpu1", total) as progress:
            progress.advance(len(piece))

    A transfer that takes less than :data:`LOG_EVERY_S` is not logged.

    :param what: readable text of what is moved, and where.
    :param total: how many bytes that is.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self.done = 0
        """How many bytes were moved."""
        self._lock = threading.Lock()
        self._bar = _bar() if sys.stderr.isatty() else None

    def __enter__(self) -> TransferProgress:
        self._began = self._told_at = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._told_at > self._began:
            # If the progress was logged, the end is logged, too.
            self._tell(time.monotonic())

    def advance(self, nbytes: int) -> None:
        """Count bytes that were moved; a negative number if some must be moved again."""
        with self._lock:
            self.done += nbytes
            if self._bar is not None:
                self._bar.update(self._task, completed=self.done)
                return
            now = time.monotonic()
            if now >= self._told_at + LOG_EVERY_S:
                self._told_at = now
                self._tell(now)

    def _tell(self, now: float) -> None:
        log.info("%s: %s", self._what, progress_line(self.done, self._total, now - self._began))


def progress_line(done: int, total: int, seconds: float) -> str:
    """Return bytes, percent, rate and remaining time as text, as far as they are known."""
    words = [f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"]
    if total:
        words[0] += f" ({min(100, int(100 * done / total))}%)"
    if seconds >= _FIRST_RATE_S and done:
        words.append(f"{done / 1e6 / seconds:,.1f} MB/s")
        if done < total:
            words.append(f"{duration_text((total - done) * seconds / done)} left")
    return ", ".join(words)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
