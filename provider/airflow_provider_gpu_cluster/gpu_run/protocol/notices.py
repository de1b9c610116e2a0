"""What of a job is told to people while it goes on, and what is counted of it: each once, whoever looks."""

from __future__ import annotations

from typing import TypedDict

from .usage import Seconds

QUEUED_FOR = "queued_for"
NO_PROGRESS_FOR = "no_progress_for"
TIME_LIMIT_IN = "time_limit_in"
RECOVERED = "recovered"
IDLE = "idle"
NOTICES = (QUEUED_FOR, NO_PROGRESS_FOR, TIME_LIMIT_IN, RECOVERED, IDLE)

# The ends of a job, of which a callback tells, if nobody has done so. Words of lower-case letters and digits may
# follow, each after a `-`: who is told, and that the task will be tried again.
ENDS = ("completed", "failed", "timed_out", "resources_exhausted", "system_error", "cancelled", "idle_end")

STARTED = "started"
ENDED = "ended"


class NotifyWhen(TypedDict, total=False):
    """
    When somebody wants to be told about a job; what is missing is not told.

    :param queued_for: it has waited for so many seconds.
    :param no_progress_for: it has made no progress for so many seconds.
    :param time_limit_in: so many seconds are left of its time limit.
    :param recovered: it has gone on in a next attempt.
    :param idle: it has left its GPUs idle for its whole ``utilization_window``.
    """

    queued_for: float
    no_progress_for: float
    time_limit_in: float
    recovered: bool
    idle: bool


class _Notice(TypedDict):
    event: str
    attempt: int


class Notice(_Notice, total=False):
    """
    Something to tell now. Whoever gets it is to send it, and to say with the verb ``told`` that it was sent.

    :param event: one of :data:`NOTICES`.
    :param attempt: the attempt that it is about; for ``recovered``, the one that follows.
    :param limit_s: the seconds of its :class:`NotifyWhen`.
    :param for_s: for how long it is so.
    :param left_s: for ``time_limit_in``, how many seconds are left.
    :param tries: how often somebody was to send it, with this one.
    """

    limit_s: float
    for_s: float
    left_s: float
    tries: int


class ToldNote(TypedDict):
    """
    ``told/<event>.json`` of an attempt, or of an array: who tells of an event, and whether that is done.

    :param state: ``sending`` or ``sent``.
    :param at: since when.
    :param tries: how often somebody was to send it.
    """

    state: str
    at: str
    tries: int


class _Counted(TypedDict):
    event: str
    job_id: str
    attempt: int


class Counted(_Counted, total=False):
    """
    Something that has happened to a job, and that nobody has counted yet.

    :param event: ``started``, ``ended`` or ``recovered``.
    :param attempt: the attempt that has started or ended, or that follows another.
    :param dag_id: of the task that has launched the job, and ``task_id``.
    :param state: in which it ended, and ``reason``, if that was a bad end; of ``recovered``, why the attempt before it
        has ended.
    :param seconds: how long each of its parts took, as far as known.
    :param gpu_seconds: that it held GPUs.
    """

    dag_id: str
    task_id: str
    state: str
    reason: str
    seconds: Seconds
    gpu_seconds: float
