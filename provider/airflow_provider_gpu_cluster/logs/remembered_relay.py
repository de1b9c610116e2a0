"""A relay whose position is part of the task's memory, for a task that continues in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_gpu_cluster.logs.relay import LogChunk, LogPosition, LogRelay


class RememberedRelay(LogRelay):
    """
    Turns chunks of output into lines, as :class:`.LogRelay` does.

    :param memory: plain JSON values, which hold the position under ``shown``.
    """

    def __init__(self, emit: Callable[[str], object], *, location: str, memory: dict[str, Any]) -> None:
        super().__init__(emit, location=location)
        self._memory = memory
        if shown := memory.get("shown"):
            self.position = LogPosition(*shown)

    def feed(self, chunk: LogChunk, *, final: bool = False) -> bool:
        """Show the lines of a chunk; see :meth:`.LogRelay.feed`."""
        has_moved = super().feed(chunk, final=final)
        if self.position is not None:
            self._memory["shown"] = [self.position.attempt, self.position.offset]
        return has_moved
