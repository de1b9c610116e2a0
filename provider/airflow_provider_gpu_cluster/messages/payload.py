"""A message as JSON values; ``payload.schema.json`` beside this is their schema, docs/notifications.md explains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import PastAttempt
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.metrics import storable
from airflow_provider_gpu_cluster.jobs.status import JobStatus
from airflow_provider_gpu_cluster.messages.facts import line, number_of, run_seconds
from airflow_provider_gpu_cluster.messages.message import JobTask
from airflow_provider_gpu_cluster.messages.story import Story

SCHEMA = "gpu-cluster-event/1"
"""The form of a payload. Fields may be added to it; another meaning would be another number."""

_MOST_ATTEMPTS = 100
_MOST_GPUS = 256


def payload_of(
    story: Story,
    status: JobStatus | None,
    *,
    kind: str,
    event_id: str,
    handle: JobHandle | None,
    task: JobTask | None,
    conn_id: str,
    cluster: str,
    metrics: Mapping[str, Any],
    facts: Mapping[str, float],
) -> dict[str, Any]:
    """Return a message as JSON values, without those that are not known."""
    links = dict(story.links)
    payload = _known(
        {
            "schema": SCHEMA,
            "event_id": event_id,
            "event": kind,
            "title": story.title,
            "subject": story.subject,
            "headline": story.headline,
            "cause": story.cause,
            "remedy": story.remedy,
            "verdict": _known({"reason": line(status.reason, 80), "kind": line(status.kind, 80)}) if status else None,
            "condition": _known({name: number_of(value) for name, value in facts.items()}),
            "cluster": _known({"conn_id": conn_id, "name": line(cluster)}),
            "job": _job(status, handle),
            "task": _task(task),
            "duration_s": run_seconds(status),
            "gpu_hours": _gpu_hours(status),
            "seconds": _numbers(status.seconds) if status else None,
            "usage": _usage(status),
            "progress": _words_and_numbers(status.progress) if status else None,
            "metrics": _words_and_numbers(metrics),
            "attempts": [_attempt(past) for past in status.attempts[-_MOST_ATTEMPTS:]] if status else None,
            "recovered": _numbers(status.recovered) if status else None,
            "log_tail": list(story.last_lines),
            "links": _known({"job": links.get("GPU job"), "task": links.get("Task in Airflow")}),
        }
    )
    # Receivers in other languages take no NaN.
    return dict(storable(payload))


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value not in ("", [], {})}


def _job(status: JobStatus | None, handle: JobHandle | None) -> dict[str, Any]:
    job: dict[str, Any] = {}
    if handle is not None:
        job = {
            "job_id": handle.job_id,
            "job_dir": line(handle.job_dir),
            "engine": handle.engine,
            "submitted_at": handle.submitted_at,
            "gpus_requested": handle.gpus,
            "array_size": handle.array_size,
        }
    if status is not None:
        job |= {
            "job_id": status.job_id,
            "state": str(status.state),
            "attempt": status.attempt or None,
            "submitted_at": line(status.submitted_at) or job.get("submitted_at"),
            "started_at": line(status.started_at),
            "ended_at": line(status.ended_at),
            "exit_code": status.exit_code,
            "signal": status.signal,
            "host": line(status.host),
            "gpus": list(status.gpus[:_MOST_GPUS]),
        }
    return _known(job)


def _task(task: JobTask | None) -> dict[str, Any] | None:
    if task is None:
        return None
    return _known(
        {
            "dag_id": task.dag_id,
            "run_id": task.run_id,
            "task_id": task.task_id,
            "map_index": task.map_index if task.is_mapped else None,
            "try_number": task.try_number,
            "tries": task.tries,
            "will_retry": task.will_retry,
        }
    )


def _gpu_hours(status: JobStatus | None) -> float | None:
    seconds = number_of(status.gpu_seconds) if status else None
    return None if seconds is None else round(seconds / 3600, 4)


def _usage(status: JobStatus | None) -> dict[str, Any] | None:
    if status is None:
        return None
    usage = _words_and_numbers(status.usage) or {}
    gpus = status.usage.get("gpus")
    usage["gpus"] = [_words_and_numbers(gpu) for gpu in gpus[:_MOST_GPUS]] if isinstance(gpus, list) else None
    usage["peak_host_memory_bytes"] = status.peak_memory_bytes
    usage["host_memory_limit_bytes"] = status.memory_limit_bytes
    return _known(usage)


def _attempt(past: PastAttempt) -> dict[str, Any]:
    return _words_and_numbers(past) or {}


def _numbers(values: Any) -> dict[str, float]:
    return _known({line(name, 80): number_of(value) for name, value in _items(values)})


def _words_and_numbers(values: Any) -> dict[str, Any] | None:
    """Return the texts and numbers of a dict. A number that is not finite becomes a text, such as ``NaN``."""
    found: dict[str, Any] = {}
    for name, value in _items(values):
        if isinstance(value, bool) or number_of(value) is not None:
            found[line(name, 80)] = value
        elif isinstance(value, (str, float)):
            found[line(name, 80)] = line(storable(value))
    return found or None


def _items(values: Any) -> list[tuple[Any, Any]]:
    return list(values.items())[:100] if isinstance(values, Mapping) else []
