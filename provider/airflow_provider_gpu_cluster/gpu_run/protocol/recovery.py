"""What is written down about an attempt that follows another by itself, without anybody asking for it."""

from __future__ import annotations

from typing import TypedDict


class PastAttempt(TypedDict, total=False):
    """
    An attempt that has ended and was followed by another; see :class:`.records.ExitRecord` for most values.

    :param checkpoint: path of the newest file of a checkpoint that it left, relative to the outputs.
    :param line: how it ended and the job goes on, as the log of the next attempt begins.
    :param conn_id: the connection of the cluster where it was, and where its logs are; not given if that is this one.
    """

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
    line: str
    conn_id: str


class QuickEnd(TypedDict):
    """An end soon after the start, without anything saved: what the brake on recovery counts."""

    kind: str
    node: str | None


class _Recovery(TypedDict):
    first: int
    used: dict[str, int]
    reason: str
    why: str
    streak: int
    not_before: float
    checkpoint: str | None
    quick_ends: list[QuickEnd]
    past: list[PastAttempt]


class Recovery(_Recovery, total=False):
    """
    In ``request.json`` of an attempt that goes on where another one has ended, by itself.

    :param first: number of the first attempt of this chain. Its logs go on.
    :param used: how many attempts each reason has caused so far.
    :param reason: why the attempt before has ended.
    :param why: the same as a part of a sentence, with how long it ran, and where.
    :param streak: how many ends for this reason there were in a row.
    :param not_before: when this attempt may begin, in seconds since the epoch.
    :param checkpoint: path of the newest file of a checkpoint, relative to the outputs; None when there is none.
    :param quick_ends: the last ends, as far as each of them was quick.
    :param past: the attempts before, the oldest first; not more than the last hundred.
    :param exclude_nodes: nodes on which it must not run, since they failed.
    """

    exclude_nodes: list[str]


class _NextAttempt(TypedDict):
    recovery: Recovery


class NextAttempt(_NextAttempt, total=False):
    """
    In an exit record: the attempt that follows.

    :param memory_bytes: its limit on host memory, if it has another one.
    """

    memory_bytes: int
