"""What is written down about an attempt that follows another by itself, without anybody asking for it."""

from __future__ import annotations

from typing import TypedDict


class PastAttempt(TypedDict, total=False):
    """An attempt that has ended and was followed by another; see ``ExitRecord`` and ``Recovery``."""

    attempt: int
    reason: str | None
    kind: str | None
    message: str
    started_at: str | None
    ended_at: str
    host: str | None
    exit_code: int | None
    gpu_seconds: float | None
    checkpoint: str | None


class Ended(TypedDict):
    """
    What the brake on recovery needs to know of an earlier end.

    :param kind: how it ended.
    :param quickly: whether that was soon after its start.
    :param node: where it ran, if that is known.
    """

    kind: str
    quickly: bool
    node: str | None


class Recovery(TypedDict, total=False):
    """
    In ``request.json`` of an attempt that goes on where another one ended, by itself.

    :param first: number of the first attempt of this chain.
    :param used: how many attempts each reason has caused so far.
    :param reason: why the attempt before has ended; the same applies to ``kind``.
    :param why: the same as a sentence, with how long it ran and where.
    :param streak: how many ends of this reason in a row.
    :param not_before: when this attempt may begin, in seconds since the epoch.
    :param checkpoint: path of the newest file of a checkpoint, relative to the outputs; None when there is none.
    :param exclude_nodes: nodes on which it must not run.
    :param ends: the last ends, for the brake.
    """

    first: int
    used: dict[str, int]
    reason: str
    kind: str
    why: str
    streak: int
    not_before: float
    checkpoint: str | None
    exclude_nodes: list[str]
    ends: list[Ended]


class RecoveryDecision(TypedDict, total=False):
    """
    ``recovery.json``: what follows an end, written once, by whoever has settled it.

    :param again: whether another attempt follows.
    :param why_not: why none does, for a person; empty when nobody would expect one.
    :param next: the part of the next attempt's request.
    :param memory_bytes: its limit on host memory, if that differs.
    """

    again: bool
    why_not: str
    next: Recovery
    memory_bytes: int
