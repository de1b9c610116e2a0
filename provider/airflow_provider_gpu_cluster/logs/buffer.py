"""Collects output that arrives in pieces into the chunks that a :class:`LogRelay` needs. No IO."""

from __future__ import annotations

from collections import deque

from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition, LogRelay, Output, has_ended


class OutputBuffer:
    """
    Feeds a relay with output that is pushed to it, instead of output that it asks for.

    ::

        buffer.place(position)                  # the reader's place, from the cluster
        buffer.add(output)                      # a piece arrived
        while buffer.show(status):              # other tasks run between two calls
            await asyncio.sleep(0)
        acknowledge(relay.position)
        if buffer.drained(status): ...

    Pieces may repeat or overlap earlier ones. The output of a new log is shown after all output that has arrived from
    the log before.

    :param relay: shows the lines. Everything before its position was dealt with.
    """

    def __init__(self, relay: LogRelay) -> None:
        self._relay = relay
        self._runs: deque[_Stretch] = deque()
        """In order; a new log or a gap begins a new one. Only the last one still grows."""
        if relay.position is not None:
            self._runs.append(_Stretch(relay.position))

    def place(self, position: LogPosition) -> None:
        """
        Continue from the reader's place.

        A place that was already reached changes nothing: the cluster knows only what was acknowledged.
        """
        run = self._run_of(position)
        if run is not None:
            run.drop(position.offset)

    def add(self, output: Output) -> None:
        """Add a piece of output."""
        start = output.start
        run = self._run_of(start)
        if run is None:
            return
        if start.offset > run.end:
            # The missing part was dealt with elsewhere, or will never arrive.
            run = _Stretch(start)
            self._runs.append(run)
        run.data += output.data[run.end - start.offset :]
        run.log_bytes = max(run.log_bytes, output.log_bytes, run.end)

    def show(self, status: JobStatus, *, max_bytes: int = 16384, max_lines: int = 1000) -> bool:
        """
        Show complete lines; once the log grows no more, also an incomplete last line.

        :param status: last known status of the job.
        :param max_bytes: how many bytes to process in this call; more if a line is longer.
        :param max_lines: how many lines of output to show in this call, at least 1.
        :return: whether to call again, because the position moved and there may be more to show.
        """
        if not self._runs:
            return False
        run = self._runs[0]
        is_over = run is not self._runs[-1]
        chunk = LogChunk(run.start, run.head(max_bytes, max_lines), self._size(run, status), status)
        moved = self._relay.feed(chunk, final=is_over)
        assert self._relay.position is not None
        run.drop(self._relay.position.offset)
        if is_over and not moved:
            self._runs.popleft()
            return True
        return moved

    def left(self, status: JobStatus) -> int:
        """Return how many bytes of output are still to be processed, whether or not they have arrived."""
        left = sum(self._size(run, status) - run.start.offset for run in self._runs)
        if not self._runs or status.log_number > self._runs[-1].start.attempt:
            left += status.log_bytes
        return left

    def drained(self, status: JobStatus) -> bool:
        """Return whether the job has ended and all of its output was processed."""
        if not status.final or self.left(status):
            return False
        return not self._runs or has_ended(self._runs[-1].start.attempt, status)

    def _run_of(self, position: LogPosition) -> _Stretch | None:
        """Return the stretch that a place belongs to; None if its log is over."""
        last = self._runs[-1] if self._runs else None
        if last is None or position.attempt > last.start.attempt:
            last = _Stretch(position)
            self._runs.append(last)
        return last if position.attempt == last.start.attempt else None

    def _size(self, run: _Stretch, status: JobStatus) -> int:
        """Return the size of a stretch's log; only what has arrived if the rest can no longer arrive."""
        if run is not self._runs[-1] or (status.final and not status.attempt):
            return run.end
        return max(run.log_bytes, status.log_bytes) if status.log_number == run.start.attempt else run.log_bytes


class _Stretch:
    """
    Bytes that arrived without a gap.

    :param start: where they begin.
    """

    def __init__(self, start: LogPosition) -> None:
        self.start = start
        self.data = bytearray()
        self.log_bytes = start.offset

    @property
    def end(self) -> int:
        return self.start.offset + len(self.data)

    def drop(self, offset: int) -> None:
        """Drop everything before a place."""
        if offset > self.start.offset:
            del self.data[: offset - self.start.offset]
            self.start = LogPosition(self.start.attempt, offset)
            self.log_bytes = max(self.log_bytes, offset)

    def head(self, max_bytes: int, max_lines: int) -> bytes:
        """Return up to so many of the first lines, at least one, or all there is."""
        end = 0
        for _ in range(max_lines):
            line_end = self.data.find(b"\n", end, max_bytes) + 1
            if not line_end:
                break
            end = line_end
        else:
            return bytes(self.data[:end])
        if len(self.data) <= max_bytes:
            return bytes(self.data)
        end = end or self.data.find(b"\n", max_bytes) + 1
        return bytes(self.data[: end or len(self.data)])
