"""Records of an interruption that somebody has asked for, to see what a running job makes of it."""

from __future__ import annotations

from typing import TypedDict

# What a running job can be made to believe: that it is preempted, that its time limit has come, or is about to come.
AS_PREEMPTED = "preempted"
AS_TIME_LIMIT = "time_limit"
AS_CHECKPOINT = "checkpoint"
INTERRUPTIONS = (AS_PREEMPTED, AS_TIME_LIMIT, AS_CHECKPOINT)


class InterruptionRecord(TypedDict):
    """
    ``interrupt.json``: the last interruption of an attempt.

    :param id: unique among them.
    :param kind: one of :data:`INTERRUPTIONS`.
    :param by: who asks.
    """

    id: str
    kind: str
    by: str
    at: str


class InterruptionAnswer(TypedDict):
    """
    ``interrupted.json``: what the supervisor has done about it.

    :param id: of the interruption.
    :param message: a sentence for who has asked.
    """

    id: str
    message: str
