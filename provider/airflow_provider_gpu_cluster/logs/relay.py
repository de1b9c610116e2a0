"""
The job's output as lines of the task log.

A relay keeps no state of its own: each poke makes a new one, which continues from the position that the cluster
remembers for its reader. Bytes that were not used (an incomplete line) are read again.

The cap on output also follows from the position, separately for each log. (A job that goes on in a next attempt by
itself goes on in the same log; an attempt that Airflow asks for begins a new one.)

- Below ``max_bytes``, lines are shown as they arrive.
- When the job has printed more, one line says so, and the position is set to ``max_bytes`` or above, which tells
  later relays. While the job runs, nothing more is shown; the position stays :data:`TAIL_BYTES` behind the end,
  so that no poke transfers more than necessary.
- When the job has ended, one line says how many bytes were left out and where the whole log is stored, and the
  last :data:`TAIL_BYTES` are shown. A log that exceeds the cap by no more than that is shown whole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden
from airflow_provider_gpu_cluster.jobs.status import JobStatus

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.masks import Masks

MAX_LINE_BYTES = 1 << 16
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class LogPosition:
    """
    A place in a job's output.

    :param attempt: number of the attempt with which that output began, from 1; see :attr:`.JobStatus.log_number`.
    :param offset: bytes of its ``training.log`` before the place.
    """

    attempt: int
    offset: int


@dataclass(frozen=True)
class Output:
    """
    A piece of a job's output.

    :param start: where the piece begins.
    :param log_bytes: size of the whole log.
    """

    start: LogPosition
    data: bytes
    log_bytes: int

    @property
    def end(self) -> LogPosition:
        """Where the piece ends."""
        return LogPosition(self.start.attempt, self.start.offset + len(self.data))


@dataclass(frozen=True)
class LogChunk(Output):
    """
    A piece of a job's output, and how the job stood when it was read.

    :param note: JSON values that the reader has noted for the place where the piece begins; None if there are none.
    """

    status: JobStatus
    note: dict[str, Any] | None = None

    @property
    def is_last_known(self) -> bool:
        """Whether no output beyond this piece is known, neither of this attempt nor of a newer one."""
        return self.end.offset >= self.log_bytes and self.status.log_number <= self.start.attempt


def has_ended(attempt: int, status: JobStatus) -> bool:
    """
    Return whether a status shows that the log that began with an attempt grows no more.

    The status of an earlier log does not show it. A final status without an attempt belongs to a removed job.
    """
    return status.log_number > attempt or (status.final and status.log_number in (0, attempt))


class LogRelay:
    """
    Turns chunks of output into lines.

    ::

        relay = LogRelay(log.info, location="me@gpu1:/home/me/ml-jobs/x/logs/training.log")
        more = True
        while more:
            more = relay.feed(cluster.read_log(job_id, reader=reader, ack=relay.position))

    The last read of that loop returns nothing new and acknowledges what was shown.

    :param emit: called with each line, without its line end.
    :param location: where the whole log is stored, for the line that says what was left out.
    :param max_bytes: how many bytes of a log to show before the middle is left out.
    """

    def __init__(self, emit: Callable[[str], object], *, location: str = "", max_bytes: int = 10_000_000) -> None:
        self._emit = emit
        self._location = location or "logs/training.log in the job's directory"
        self._max_bytes = max_bytes
        self.position: LogPosition | None = None
        """Everything before this place was processed and can be acknowledged. None before the first chunk."""
        self.lines = 0
        """Number of lines shown."""
        self._shown_already: deque[str] = deque()
        self._masks: Masks | None = None

    def skip(self, lines: Iterable[str]) -> None:
        """
        Do not show again lines that were shown but whose acknowledgement was lost.

        They count as shown. Skipping ends at the first line that differs, and with a new log.

        :param lines: the first lines after the position.
        """
        self._shown_already = deque(lines)

    def feed(self, chunk: LogChunk, *, final: bool = False) -> bool:
        """
        Show the lines of a chunk, which must start at :attr:`position`.

        :param final: also show an incomplete last line, because no more will be read.
        :return: whether the position moved; then acknowledge it and read on, because there may be more.
        """
        self._masks = chunk.status.masks or self._masks
        whole = final or has_ended(chunk.start.attempt, chunk.status)
        if self.position is not None and self.position.attempt != chunk.start.attempt:
            self._shown_already.clear()
        cap = self._max_bytes
        if whole and chunk.log_bytes <= cap + TAIL_BYTES:
            cap = chunk.log_bytes
        start = chunk.start.offset
        if chunk.log_bytes <= cap or start < cap:
            stop = self._show_start(chunk, cap, whole=whole)
        elif whole:
            stop = self._show_tail(chunk)
        else:
            stop = max(start, self._tail_start(chunk))
        self.position = LogPosition(chunk.start.attempt, stop)
        return stop > start

    def _show_start(self, chunk: LogChunk, cap: int, *, whole: bool) -> int:
        """Show the output below the cap, and return the offset reached."""
        start = chunk.start.offset
        flooded = chunk.log_bytes > cap and chunk.end.offset >= cap
        data = chunk.data[: cap - start] if flooded else chunk.data
        at_end = whole and chunk.end.offset >= chunk.log_bytes
        used = self._show(data, complete=flooded or at_end)
        if not flooded:
            return start + used
        if not whole:
            self._line(
                f"[more than {self._max_bytes:,} bytes of output: what follows is not shown until the job "
                f"ends; all of it is in {self._location}]"
            )
        return cap

    def _show_tail(self, chunk: LogChunk) -> int:
        """Show the output after the part that is left out, and return the offset reached."""
        start, tail_start, data = chunk.start.offset, self._tail_start(chunk), chunk.data
        if start < tail_start:
            return tail_start
        at_end = chunk.end.offset >= chunk.log_bytes
        if start == tail_start and data:
            line_start = data.find(b"\n") + 1
            if not line_start and not at_end:
                return start
            if start + line_start < chunk.log_bytes:
                data = data[line_start:]
            left_out = chunk.end.offset - len(data) - self._max_bytes
            self._line(f"[{left_out:,} bytes of output are left out here; all of it is in {self._location}]")
        return chunk.end.offset - len(data) + self._show(data, complete=at_end)

    def _tail_start(self, chunk: LogChunk) -> int:
        return max(self._max_bytes, chunk.log_bytes - TAIL_BYTES)

    def _show(self, data: bytes, *, complete: bool) -> int:
        """
        Show the lines in ``data`` and return how many bytes of it were used.

        :param complete: show the last line even if it has no end.
        """
        used = 0
        while used < len(data):
            line_end = data.find(b"\n", used, used + MAX_LINE_BYTES + 1)
            if line_end >= 0:
                self._line(visible(data[used:line_end]))
                used = line_end + 1
            elif len(data) - used > MAX_LINE_BYTES:
                piece = _cut(data[used : used + MAX_LINE_BYTES])
                self._line(visible(piece))
                used += len(piece)
            elif complete:
                self._line(visible(data[used:]))
                used = len(data)
            else:
                break
        return used

    def _line(self, line: str) -> None:
        self.lines += 1
        line = hidden(line, self._masks)
        if self._shown_already:
            if self._shown_already.popleft() == line:
                return
            self._shown_already.clear()
        self._emit(line)


def visible(line: bytes) -> str:
    """
    Return the text to show for one line of output.

    Of a progress bar, which redraws itself with carriage returns, only the last state is kept. Colours stay,
    because Airflow's UI draws them; other terminal sequences are removed. Remaining control characters, and bytes
    that are not UTF-8, are shown as ``\\x00``.
    """
    picture = line.rstrip(b"\r").rpartition(b"\r")[2]
    text = _TERMINAL.sub(_colour_only, picture.decode("utf-8", "backslashreplace"))
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


# ECMA-48: control sequences (ESC [ ... letter) and operating system commands (ESC ] ... BEL or ESC \).
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
# All of C0 and C1, except the tab and the ESC that begins a colour.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;:]*m)")


def _colour_only(match: re.Match[str]) -> str:
    return match[0] if _COLOUR.fullmatch(match[0]) else ""


def _cut(piece: bytes) -> bytes:
    """Shorten a piece of a long line to end after its last carriage return, or else after a whole character."""
    returned = piece.rfind(b"\r") + 1
    if returned:
        return piece[:returned]
    for back in (1, 2, 3):
        first = piece[-back]
        if first >= 0xC0:
            length = 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2
            return piece[:-back] if back < length else piece
        if first < 0x80:
            break
    return piece
