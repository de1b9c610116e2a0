"""What a message says about a job that waits or runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.jobs.progress import duration_text
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.messages import kinds
from airflow_provider_gpu_cluster.messages.facts import line, number_of


class ConditionWords(NamedTuple):
    """
    What a message says about a condition.

    :param headline: a sentence.
    :param detail: the end of its subject.
    :param cause: why; empty if nobody knows.
    :param remedy: what to do about it, as a sentence.
    """

    headline: str
    detail: str
    cause: str = ""
    remedy: str = ""


def told(condition: str, status: JobStatus, facts: Mapping[str, float], *, thing: str, place: str) -> ConditionWords:
    """
    Return what a message says about a condition.

    :param facts: of ``limit_s``, ``for_s`` and ``left_s``, in seconds, those that belong to the condition.
    :param thing: what the job is, as the subject of a sentence.
    :param place: where it is, as the end of a sentence.
    """
    return _TOLD[condition](status, facts, f"{thing}{place}")


def _queued_for(status: JobStatus, facts: Mapping[str, float], job: str) -> ConditionWords:
    waited = _seconds(facts, "for_s", "limit_s")
    turn = f" It has place {status.queue_place} in the queue." if status.queue_place else ""
    return ConditionWords(
        f"{job} has been waiting{_for(waited)}.{turn}",
        f",{_for(waited)}" if waited else "",
        status.message,
        "Let it wait, ask for fewer or other GPUs, or launch it on another cluster.",
    )


def _no_progress_for(status: JobStatus, facts: Mapping[str, float], job: str) -> ConditionWords:
    stood = _seconds(facts, "for_s", "limit_s")
    return ConditionWords(
        f"{job} runs, and has made no progress{_for(stood)}.",
        f",{_for(stood)}" if stood else "",
        remedy="See whether its last lines say why. A job with hang_timeout= is stopped when it does nothing at all.",
    )


def _time_limit_in(status: JobStatus, facts: Mapping[str, float], job: str) -> ConditionWords:
    left = _seconds(facts, "left_s", "limit_s")
    when = f" in {left}" if left else " soon"
    return ConditionWords(
        f"{job} will reach its time limit{when}, and will be stopped then.",
        f",{when}",
        remedy="What it has not saved by then is lost. With warn_before= it is told in time, with recover= it goes on "
        "from its checkpoint, and a longer time_limit= helps the next run.",
    )


def _idle(status: JobStatus, facts: Mapping[str, float], job: str) -> ConditionWords:
    note: dict[str, Any] = dict(status.idle or {})
    idle = _seconds({**facts, "idle_s": note.get("idle_s", 0)}, "idle_s", "for_s", "limit_s")
    headline = f"{job} has left its GPUs idle{_for(idle)}{', and was stopped for that' if status.final else ''}."
    percent, least, window_s = (number_of(note.get(name)) for name in ("percent", "min_percent", "window_s"))
    if percent is not None and least is not None:
        headline += f" It used {percent:.0f} % of them in the mean; below {least:g} % is idle."
    if note.get("on_idle") == "cancel" and note.get("level") == "whole":
        headline += " It is stopped for that."
    elif note.get("on_idle") == "cancel" and window_s:
        headline += f" If it goes on like this, it will be stopped after {duration_text(window_s)}."
    return ConditionWords(
        headline,
        f",{_for(idle)}" if idle else "",
        status.message if status.final else "",
        "See what it waits for, such as its data or a lock; cancel it if nobody needs it any more.",
    )


def _recovered(status: JobStatus, facts: Mapping[str, float], job: str) -> ConditionWords:
    past = status.attempts[-1] if status.attempts and isinstance(status.attempts[-1], dict) else None
    reason = line(past.get("reason"), 40) if past else ""
    verb = "has saved" if reason == protocol.CHECKPOINTED else kinds.opening_of_reason(reason).verb
    number = status.attempt or ""
    return ConditionWords(
        f"{job} {verb if past else 'has ended'}, and goes on by itself as attempt {number}.",
        f" (attempt {number}; {reason.replace('_', ' ')})" if reason else f" (attempt {number})",
        line(past.get("message")) if past else "",
    )


def _seconds(facts: Mapping[str, float], *names: str) -> str:
    """Return the first of some durations that is known, as text."""
    for name in names:
        seconds = number_of(facts.get(name))
        if seconds is not None and seconds > 0:
            return _rounded(seconds)
    return ""


def _rounded(seconds: float) -> str:
    """Return a duration as text, in whole minutes if it is longer."""
    return duration_text(seconds if seconds < 120 else 60 * round(seconds / 60))


def _for(duration: str) -> str:
    return f" for {duration}" if duration else ""


_TOLD = {
    kinds.QUEUED_FOR: _queued_for,
    kinds.NO_PROGRESS_FOR: _no_progress_for,
    kinds.TIME_LIMIT_IN: _time_limit_in,
    kinds.IDLE: _idle,
    kinds.RECOVERED: _recovered,
}
