"""Shows a job's output, from a watcher's events, in a task's log, each line once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.buffer import OutputBuffer
from airflow_provider_gpu_cluster.logs.relay import LogPosition, LogRelay, Output
from airflow_provider_gpu_cluster.triggers.output_log import OutputLog
from airflow_provider_gpu_cluster.triggers.shown_lines import shown_lines
from airflow_provider_gpu_cluster.watch.events import Place

# Bytes shown in one batch. Even as lines of one character they fit into the socket that triggers log through.
_BATCH_BYTES = 2048


class OutputDisplay:
    """
    Shows a job's output, and acknowledges what is safely in the log.

    Each acknowledgement carries a note: which log it is, and how many lines of output the log holds by then. If this
    trigger is killed, the next one can tell from the note which lines in the log lie beyond the acknowledged place.

    :param ti: the task instance whose log it is; None outside of a triggerer.
    :param location: where the whole output is stored, for the line that says what was left out.
    :param acknowledge: tells the cluster up to which place everything was shown.
    :param prefix: begins each line, in a log that also holds the output of other jobs.
    :param shown_before: returns the lines of output that earlier triggers of this try have shown, if the caller has
        already read them; None to read them from the log.
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
        """The place that the cluster has noted."""

    def place(self, place: Place) -> None:
        """Start at the reader's place, or continue after a reconnect."""
        if not self._is_placed:
            self._is_placed = True
            self._skip_shown_lines(place.note or {})
        self._buffer.place(place.position)

    def _skip_shown_lines(self, note: dict[str, Any]) -> None:
        """Skip the lines that are in the log beyond the place because their acknowledgement was lost."""
        if self._ti is not None:
            self._relay.lines = note["lines"] if note.get("log") == self._log_id else 0
            start = len(self._prefix)
            shown = [line[start:] for line in self._shown_before() if line.startswith(self._prefix)]
            self._relay.skip(shown[self._relay.lines :])

    def add(self, output: Output) -> None:
        """Take a piece of output."""
        self._buffer.add(output)

    async def show(self, status: JobStatus) -> bool:
        """Show some lines, and return whether more can be shown now."""
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
        """Return whether the job has ended and all of its output was shown."""
        return self._buffer.drained(status)

    @property
    def is_acknowledged(self) -> bool:
        """Whether the cluster has noted everything that was shown."""
        return self._asked is None or self.acknowledged == self._asked
