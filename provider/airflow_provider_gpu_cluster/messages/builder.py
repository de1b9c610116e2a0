"""
Builds the message about an event.

Whatever a job, its names, its output or its metrics hold: secrets are hidden first, then texts are cut, and nothing
here raises because of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import Masks, hidden_in
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.progress import duration_text, metric_words
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.messages import conditions, kinds
from airflow_provider_gpu_cluster.messages.facts import (
    MOST_ATTEMPTS,
    attempts_of,
    facts_of,
    line,
    metrics_of,
    run_seconds,
)
from airflow_provider_gpu_cluster.messages.kinds import Opening
from airflow_provider_gpu_cluster.messages.log_end import last_lines
from airflow_provider_gpu_cluster.messages.mail import html_mail
from airflow_provider_gpu_cluster.messages.message import JobMessage, JobTask
from airflow_provider_gpu_cluster.messages.payload import payload_of
from airflow_provider_gpu_cluster.messages.plain import chat_text, plain_text
from airflow_provider_gpu_cluster.messages.story import Story, sentence

_MOST_OF_A_SUBJECT = 160
_MOST_OF_A_CAUSE = 1_000
_TONES = {
    kinds.COMPLETED: "good",
    kinds.CANCELLED: "neutral",
    kinds.RECOVERED: "warning",
    kinds.QUEUED_FOR: "warning",
    kinds.NO_PROGRESS_FOR: "warning",
    kinds.TIME_LIMIT_IN: "warning",
}


@dataclass(frozen=True)
class About:
    """
    What a message is about, as far as known.

    :param handle: of the job.
    :param conn_id: connection of the cluster.
    :param task: of Airflow.
    :param cluster: name of the cluster, ``user@host:port``.
    :param metrics: content of the job's ``metrics.json``.
    :param note: what could not be found out, and why, as a sentence.
    """

    handle: JobHandle | None = None
    conn_id: str = ""
    task: JobTask | None = None
    cluster: str = ""
    metrics: Any = None
    note: str = ""

    @property
    def place(self) -> str:
        """Where it is, in a sentence; empty if not known."""
        name = self.conn_id or self.cluster
        return f" on {line(name, 80)}" if name else ""

    def thing(self, job_id: str) -> str:
        """What it is, as the subject of a sentence."""
        if self.task is None:
            return f"GPU job {job_id}"
        return f"The GPU job of task {_named(self.task)}"


def message_of_end(status: JobStatus, about: About, *, error: BaseException | None = None) -> JobMessage:
    """
    Return the message about the end of a job.

    :param status: its final status.
    :param error: why its task has failed, if not for this end.
    """
    opening = kinds.opening_of_end(status)
    hide, status, about = _without_secrets(status, about)
    ran = "" if status.reason == protocol.LAUNCH_FAILED else _duration(run_seconds(status))
    headline = f"{about.thing(status.job_id)} {opening.verb}{about.place}{f' after {ran}' if ran else ''}."
    finer = status.kind if status.kind and status.kind != status.reason else ""
    detail = f" ({finer.replace('_', ' ')})" if finer else ""
    if opening.kind == kinds.COMPLETED and ran:
        detail = f" after {ran}"
    event = kinds.IDLE_END if opening.kind == kinds.IDLE else opening.kind
    if about.task is not None and about.task.will_retry:
        # The last try may fail for the same end, and that is another message.
        event += kinds.RETRY
    also = f"The task itself has failed: {sentence(line(hide(words_of(error)), 400))}" if error else ""
    cause = " ".join(part for part in (sentence(line(status.message, _MOST_OF_A_CAUSE)), also) if part)
    return _message(opening, event, status, about, hide, headline=headline, detail=detail, cause=cause)


def message_of_condition(
    condition: str,
    status: JobStatus,
    about: About,
    *,
    facts: Mapping[str, float],
    attempt: int | None = None,
    event_id: str | None = None,
) -> JobMessage:
    """
    Return the message about what a job does while it waits or runs.

    :param condition: one of :data:`.kinds.CONDITIONS`.
    :param facts: of ``limit_s``, ``for_s`` and ``left_s``, those that belong to the condition.
    :param attempt: number of the attempt; by default that of the status.
    :param event_id: by default ``<job id>/<attempt>/<condition>``.
    """
    if attempt is not None:
        status = replace(status, attempt=attempt)
    opening = kinds.opening_of_condition(condition)
    hide, status, about = _without_secrets(status, about)
    told = conditions.told(condition, status, facts, thing=about.thing(status.job_id), place=about.place)
    return _message(
        opening,
        condition,
        status,
        about,
        hide,
        headline=told.headline,
        detail=told.detail,
        cause=sentence(line(told.cause, _MOST_OF_A_CAUSE)),
        remedy=told.remedy,
        facts=facts,
        event_id=event_id,
    )


def message_of_error(error: BaseException | None, status: JobStatus | None, about: About) -> JobMessage:
    """
    Return the message about a task that has failed for something else than the end of its job.

    :param error: why; None if nobody knows, as its process was gone.
    :param status: of its job, if it has one.
    """
    opening = kinds.opening_of_error(error)
    hide, status, about = _without_secrets(status, about)
    what = f"Task {_named(about.task)}" if about.task else about.thing(status.job_id if status else "")
    headline = f"{what} {opening.verb}."
    if status is not None and status.state is JobState.UNKNOWN:
        headline += f" The state of its job{about.place} could not be determined."
    elif status is not None and not status.final:
        headline += f" Its job is {status.state.value.lower()}{about.place}."
    if error is None:
        cause = "Airflow has ended the task without its process, and does not say why; see the task's log."
    else:
        cause = sentence(line(hide(words_of(error)), _MOST_OF_A_CAUSE))
    return _message(opening, "", status, about, hide, headline=headline, cause=cause)


def _message(
    opening: Opening,
    event: str,
    status: JobStatus | None,
    about: About,
    hide: Callable[[Any], Any],
    *,
    headline: str,
    detail: str = "",
    cause: str = "",
    remedy: str = "",
    facts: Mapping[str, float] | None = None,
    event_id: str | None = None,
) -> JobMessage:
    task = about.task
    again = ", will be tried again" if task and task.will_retry else ""
    if again:
        headline += " Airflow will try it again."
    name = line(task.name if task else status.job_id if status else "", 120)
    attempts = attempts_of(status)
    metrics = metrics_of(about.metrics)
    story = Story(
        tone=_TONES.get(opening.kind, "bad") if event != kinds.IDLE else "warning",
        title=opening.title,
        name=name,
        subject=line(f"{opening.title}: {name}{about.place}{detail}{again}", _MOST_OF_A_SUBJECT),
        headline=line(headline, 600),
        cause=" ".join(part for part in (cause, line(about.note)) if part),
        remedy=remedy or (sentence(line(status.remedy, _MOST_OF_A_CAUSE)) if status else ""),
        facts=tuple(facts_of(status, handle=about.handle, task=task, conn_id=about.conn_id, cluster=about.cluster)),
        metrics=tuple(words for pair in metrics.items() if (words := metric_words(*pair))),
        attempts=tuple(attempts[-MOST_ATTEMPTS:]),
        earlier=max(len(attempts) - MOST_ATTEMPTS, 0),
        last_lines=last_lines(status.log_tail, hide) if status else (),
        links=_links(task),
    )
    event_id = event_id or _event_id(event, opening, status, task)
    payload = payload_of(
        story, status, kind=opening.kind, event_id=event_id, handle=about.handle, task=task,
        conn_id=about.conn_id, cluster=about.cluster,        metrics=metrics, facts=facts or {},
    )  # fmt: skip
    return JobMessage(
        kind=opening.kind,
        event=event,
        event_id=event_id,
        subject=story.subject,
        text=plain_text(story),
        chat=chat_text(story),
        html=html_mail(story),
        payload=payload,
    )


def _without_secrets(status: JobStatus | None, about: About) -> tuple[Callable[[Any], Any], Any, About]:
    masks = status.masks if status else None

    def hide(value: Any) -> Any:
        return _hidden(value, masks)

    if status is not None:
        # Its output is cut before its secrets are hidden, since it may be long.
        status = replace(
            status,
            message=hide(status.message),
            remedy=hide(status.remedy),
            progress=hide(status.progress),
            attempts=tuple(hide(list(status.attempts))),
        )
    return hide, status, replace(about, metrics=hide(about.metrics), note=hide(about.note))


def _hidden(value: Any, masks: Masks | None) -> Any:
    """Return a JSON value without the secrets that Airflow knows here, and without those that its job was given."""
    return hidden_in(redact(value, max_depth=10), masks)


def _links(task: JobTask | None) -> tuple[tuple[str, str], ...]:
    links = (("GPU job", task.job_url), ("Task in Airflow", task.task_url)) if task else ()
    return tuple((text, address) for text, address in links if address)


def _event_id(event: str, opening: Opening, status: JobStatus | None, task: JobTask | None) -> str:
    """Return the id of an event: that of a job's attempt, or else, as with an array, that of a task's try."""
    if event and status is not None and (status.attempt or task is None):
        parts: list[Any] = [status.job_id, status.attempt, event]
    elif task is not None:
        index = -1 if task.map_index is None else task.map_index
        parts = [task.dag_id, task.run_id, task.task_id, index, task.try_number or 0, event or opening.kind]
    else:
        parts = [status.job_id if status else "", "", event or opening.kind]
    # It is a header of requests, too.
    return "/".join(quote(str(part), safe="") for part in parts)


def _named(task: JobTask) -> str:
    index = f" (map index {task.map_index})" if task.is_mapped else ""
    return f"{line(task.task_id, 120)}{index} in DAG {line(task.dag_id, 120)}"


def _duration(seconds: float | None) -> str:
    return duration_text(seconds) if seconds is not None and seconds >= 0 else ""
