"""The status of a job, in the form that all replies and events use."""

from __future__ import annotations

from typing import Any, Dict, TypedDict

from .masks import Masks
from .notices import Notice
from .recovery import PastAttempt
from .usage import IdleNote, Seconds, Usage

Progress = Dict[str, Any]
"""The last line of a job's progress file: whatever the job has written."""


class AskedFor(TypedDict, total=False):
    """What a job has asked for, of what it may also do without."""

    cpus: int
    memory_bytes: int
    time_limit_s: float


class _State(TypedDict):
    state: str


class Standing(_State, total=False):
    """
    What is known about the state of an attempt; the Airflow side explains each value in its ``JobStatus``.

    Unknown values are left out. Secrets of which there are ``masks`` are hidden in all texts.

    :param orphan_timeout_s: after how long it is ended if nobody asks about it, as long as it has not ended.
    :param log_attempt: number of the attempt with which its log begins, if that is an earlier one.
    :param attempts: the earlier attempts of the same try, oldest first; not more than the last hundred.
    :param recovered: how many attempts each reason has caused.
    :param expected_start: when its scheduler expects it to start, while it waits.
    :param memory_limit_bytes: its limit on host memory, once it has ended.
    :param usage: what it has used; of a running attempt, so far.
    :param seconds: how long each of its parts took; of a running attempt, so far.
    :param idle: that it leaves its GPUs idle, while it runs.
    :param asked: what it has asked for, once it has ended.
    :param due: what the one who gets this has to tell people now, if it has asked for that.
    :param notes: what keeps a part of it from being known, such as a pipe in the place of the job's progress.
    :param placement: that the last attempt was not to run here any more: ``withdrawn``, ``expired`` or ``fenced``. That
        is no end of the job.
    :param moved_to: the connection of the cluster that has the job instead, if this one was told so.
    """

    reason: str | None
    kind: str | None
    remedy: str
    message: str
    attempts: list[PastAttempt]
    recovered: dict[str, int]
    exit_code: int | None
    signal: int | None
    attempt: int
    orphan_timeout_s: float | None
    log_attempt: int
    submitted_at: str | None
    leased_at: str
    started_at: str | None
    ended_at: str | None
    released_at: str
    gpus: list[int]
    gpu_keys: list[str]
    gpu_seconds: float | None
    peak_memory_bytes: int | None
    memory_limit_bytes: int | None
    queue_place: int | None
    expected_start: str
    progress: Progress | None
    usage: Usage
    seconds: Seconds
    idle: IdleNote
    asked: AskedFor
    host: str | None
    pid: int | None
    log_bytes: int
    log_tail: str
    elements: list[list[str | None]]
    due: list[Notice]
    masks: Masks
    notes: list[str]
    placement: str
    moved_to: str


class Status(Standing):
    """The status of a job."""

    job_id: str


class Observed(TypedDict, total=False):
    """What an attempt's files show, whatever its state."""

    attempt: int
    log_attempt: int
    log_bytes: int
    progress: Progress
    attempts: list[PastAttempt]
    recovered: dict[str, int]
    notes: list[str]


class Used(TypedDict, total=False):
    """What a running attempt has used so far, and that it leaves its GPUs idle."""

    usage: Usage
    seconds: Seconds
    idle: IdleNote


class Started(TypedDict):
    """What the claim says about a running attempt."""

    submitted_at: str
    started_at: str | None
    gpus: list[int]
    host: str
    pid: int
