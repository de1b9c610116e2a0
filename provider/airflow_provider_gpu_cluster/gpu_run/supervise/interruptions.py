"""Interruptions that somebody has asked for, to see what a running job makes of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .. import protocol
from ..linux import processes
from ..protocol.interruption import AS_CHECKPOINT, AS_PREEMPTED, AS_TIME_LIMIT
from ..store import records
from .stop import Cause

if TYPE_CHECKING:
    from ..protocol.interruption import InterruptionAnswer, InterruptionRecord
    from ..store.directories import Attempt
    from .stop import Stop


class Interruptions:
    """
    Does to a running job what the real thing would.

    :param attempt: of which the records are.
    :param stop: how it is stopped.
    """

    def __init__(self, attempt: Attempt, stop: Stop) -> None:
        self._attempt = attempt
        self._stop = stop
        self._last = ""

    def look(self) -> None:
        """Carry out an interruption, if one was asked for since the last look."""
        asked = self._asked()
        if asked is None or asked["id"] == self._last:
            return
        self._last = asked["id"]
        self._attempt.event("interrupted", kind=asked["kind"], by=asked["by"])
        answer: InterruptionAnswer = {"id": asked["id"], "message": self._carry_out(asked["kind"], asked["by"])}
        with contextlib.suppress(OSError):
            records.write_json(self._attempt.at("interrupted.json"), answer, sync=False)

    def _asked(self) -> InterruptionRecord | None:
        # The job can write there as well.
        with contextlib.suppress(OSError, ValueError):
            asked: InterruptionRecord | None = records.read_json(self._attempt.at("interrupt.json"))
            if asked is not None and all(isinstance(asked.get(name), str) for name in ("id", "kind", "by")):
                return asked
        return None

    def _carry_out(self, kind: str, by: str) -> str:
        if self._stop.cause is not None:
            return f"it is being stopped already: {self._stop.cause.message}"
        if kind == AS_CHECKPOINT:
            warned = self._stop.warn(is_rehearsed=True)
            name = self._stop.warning_name
            if warned:
                return f"{name} was sent to {_named(warned)}"
            return f"nothing was sent: no process of the job catches {name}, and it would die of it"
        if kind == AS_PREEMPTED:
            cause = Cause(protocol.FAILED, protocol.PREEMPTED, f"its preemption was rehearsed by {by}")
            self._stop.begin(cause, is_from_outside=True)
        elif kind == AS_TIME_LIMIT:
            cause = Cause(protocol.FAILED, protocol.TIME_LIMIT, f"its time limit was rehearsed by {by}")
            self._stop.begin(cause, is_from_outside=True, is_time_limit=True)
        else:
            return f"its supervisor knows no interruption {kind!r}"
        return self._stop.described()


def _named(pids: list[int]) -> str:
    return " and ".join(f"{processes.program_of(pid) or 'process'} ({pid})" for pid in pids)
