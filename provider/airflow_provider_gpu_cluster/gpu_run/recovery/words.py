"""Why an attempt follows another, for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import protocol

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest, ExitRecord
    from ..protocol.recovery import Recovery

_WENT = {
    protocol.PREEMPTED: "was preempted",
    protocol.NODE_FAILURE: "was ended by a failure of its node",
    protocol.REASON_LOST: "was lost",
    protocol.CHECKPOINTED: "saved and asked to go on",
    protocol.TIME_LIMIT: "reached its time limit",
    protocol.OUT_OF_MEMORY: "ran out of host memory",
    protocol.GPU_OUT_OF_MEMORY: "ran out of GPU memory",
    protocol.DISK_FULL: "ran out of disk space",
    protocol.USER_ERROR: "failed",
    protocol.HANG: "hung",
}
# Ends whose message says nothing more.
_PLAIN = (protocol.PREEMPTED, protocol.CHECKPOINTED, protocol.TIME_LIMIT)
_MOST_SAID = 200


def went(end: ExitRecord, ran_s: float) -> str:
    """Return how an attempt went: how it ended, after how long, and where."""
    text = "attempt {} {}".format(end["attempt"], _WENT[end["reason"] or ""])
    if end.get("started_at"):
        text += f" after {duration(ran_s)}"
    if end.get("host"):
        text += " on {}".format(end["host"])
    said = end["message"].partition("\n")[0][:_MOST_SAID]
    return text if end["reason"] in _PLAIN or not said else f"{text} ({said})"


def line(why: str, number: int, checkpoint: str | None) -> str:
    """
    Return the line that says how a job goes on.

    :param why: see :func:`went`.
    :param number: of the attempt that follows.
    :param checkpoint: the newest file of a checkpoint; None when there is none.
    """
    start = "begins without a checkpoint" if checkpoint is None else f"goes on from {checkpoint}"
    return f"gpu-run: {why}; attempt {number} {start}"


def beginning(recovery: Recovery) -> str:
    """Return the line that precedes the output of an attempt that follows another."""
    return recovery["past"][-1]["line"]


def waiting(request: AttemptRequest, number: int) -> str:
    """Return why an attempt waits that must not begin yet; empty when it may."""
    recovery = request.get("recovery")
    if recovery is None:
        return ""
    left_s = recovery["not_before"] - time.time()
    return "{}; attempt {} begins in {}".format(recovery["why"], number, duration(left_s)) if left_s > 0 else ""


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``3 h 2 min``."""
    whole = max(0, round(seconds))
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((place for place, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2] if count) or "0 s"
