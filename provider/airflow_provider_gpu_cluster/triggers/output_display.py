"""A job's output on its way from a watcher's events into a task's log, each line once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.buffer import OutputBuffer
from airflow_provider_gpu_cluster.logs.relay import LogPosition, LogRelay, Output
from airflow_provider_gpu_cluster.triggers.output_log import OutputLog
from airflow_provider_gpu_cluster.triggers.shown_lines import shown_lines
from airflow_provider_gpu_cluster.watch.events import Place

# What is shown in one batch. Even in lines of one character it fits into the socket that triggers log through.
_BATCH_BYTES = 2048


class OutputDisplay:
    """
    Shows a job's output, and acknowledges what is safely in the log.

    With each place that it acknowledges goes a note: the log, and how many lines of output are in it by then. The
    trigger that goes on after this one was killed knows by it which lines of the log are beyond that place.

    :param ti: the task instance whose log it is; None outside of a triggerer.
    :param location: where the whole output lies, for the line that says what was left out.
    :param acknowledge: tells the cluster up to where all is done.
    :param prefix: stands before each line, in a log that has the output of other jobs, too.
    :param shown_before: returns the lines of output that earlier triggers of this try have shown, where others have
        looked already; None to look.
    """

    def __init__(
        self,
        ti: Any,
        *,
        location: str,
        acknowledge: Callable[[LogPosition, dict[str, Any]], None],
        prefix: str = "",
        shown_before: Callable[[], list[str]] | None = None,
    ) -> None:
        self._ti = ti
        self._acknowledge = acknowledge
        self._log_id = None if ti is None else str(ti.id)
        self._log = OutputLog()
        self._prefix = prefix
        self._shown_before = shown_before or (lambda: shown_lines(ti))
        self._relay = LogRelay(lambda line: self._log.line(prefix + line), location=location)
        self._buffer = OutputBuffer(self._relay)
        self._is_placed = False
        self._asked: LogPosition | None = None
        self.acknowledged: LogPosition | None = None
        """What the cluster has noted."""

    def place(self, place: Place) -> None:
        """Start where the reader is, or go on after the connection was made anew."""
        if not self._is_placed:
            self._is_placed = True
            self._skip_shown_lines(place.note or {})
        self._buffer.place(place.position)

    def _skip_shown_lines(self, note: dict[str, Any]) -> None:
        """Find the lines that the log has beyond the place, because their acknowledgement was lost."""
        if self._ti is not None:
            self._relay.lines = note["lines"] if note.get("log") == self._log_id else 0
            start = len(self._prefix)
            shown = [line[start:] for line in self._shown_before() if line.startswith(self._prefix)]
            self._relay.skip(shown[self._relay.lines :])

    def add(self, output: Output) -> None:
        """Take a piece of output."""
        self._buffer.add(output)

    async def show(self, status: JobStatus) -> bool:
        """Show some lines, and return whether there may be more to show now."""
        async with self._log.batch():
            more = self._buffer.show(status, max_bytes=_BATCH_BYTES)
        position = self._relay.position
        if position is not None and position != self._asked:
            self._asked = position
            self._acknowledge(position, {"log": self._log_id, "lines": self._relay.lines})
        return more

    def left(self, status: JobStatus) -> int:
        """Return how many bytes are still to be shown."""
        return self._buffer.left(status)

    def drained(self, status: JobStatus) -> bool:
        """Return whether all has been shown of a job that has ended."""
        return self._buffer.drained(status)

    @property
    def is_acknowledged(self) -> bool:
        """Whether the cluster has noted all that was shown."""
        return self._asked is None or self.acknowledged == self._asked
