"""What is known about a job, as labels and texts for a person. A fact that is not known has no row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from airflow_provider_gpu_cluster.connection.words import cleaned, readable
from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import PastAttempt
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.progress import duration_text, metric_words, progress_text
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.messages.message import JobTask

MOST_ATTEMPTS = 10
MOST_METRICS = 20
_MOST_GPUS = 16
_MOST_CHARACTERS = 300
# Less than this is not worth a word.
_SHORTEST_PART_S = 1.0


def line(value: Any, most: int = _MOST_CHARACTERS) -> str:
    """Return a value as one line of bounded length; empty for None."""
    # Cut first: to clean megabytes would take long.
    text = "" if value is None else " ".join(readable(str(value)[: 4 * most]).split())
    return cleaned(text if len(text) <= most else f"{text[: most - 1].rstrip()}…")


def number_of(value: Any) -> float | None:
    """Return a number that can be shown, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def facts_of(
    status: JobStatus | None, *, handle: JobHandle | None, task: JobTask | None, conn_id: str, cluster: str
) -> Iterator[tuple[str, str]]:
    """Return label and text of each known fact."""
    rows: list[tuple[str, Any]] = [
        ("Task", f"{task.task_id}{f' (map index {task.map_index})' if task.is_mapped else ''}" if task else None),
        ("DAG", task.dag_id if task else None),
        ("Run", task.run_id if task else None),
        ("Try", _try(task)),
        ("Job", status.job_id if status else handle.job_id if handle else None),
        ("Cluster", _cluster(conn_id, cluster)),
    ]
    if status is not None:
        rows += [
            ("Host", status.host),
            ("Elements", _elements(status)),
            ("Attempt", status.attempt or None),
            ("Recoveries", recoveries_text(status.recovered)),
            ("GPUs", _gpus(status, handle)),
            ("Ran for", _ran_for(status)),
            ("Before that", _before(status)),
            ("GPU-hours", gpu_hours_text(status.gpu_seconds)),
            ("GPU use", _gpu_use(status)),
            ("GPU memory", _gpu_memory(status)),
            ("Energy", _energy(status)),
            ("Processors", _processors(status)),
            ("Host memory", status.memory_text),
            ("Progress", progress_text(status.progress)),
            ("Exit code", status.exit_code),
            ("Signal", status.signal if status.exit_code is None else None),
        ]
    if handle is not None:
        rows.append(("Directory", handle.job_dir))
    for label, value in rows:
        if text := line(value):
            yield label, text


def gpu_hours_text(gpu_seconds: Any) -> str:
    """Return GPU-seconds as GPU-hours, to three digits; empty if nobody knows them, or there are none."""
    seconds = number_of(gpu_seconds)
    if seconds is None or seconds <= 0:
        return ""
    hours = seconds / 3600
    return "less than 0.01" if hours < 0.01 else f"{hours:,.2f}" if hours < 100 else f"{hours:,.0f}"


def recoveries_text(recovered: Mapping[str, int]) -> str:
    """Return how often a job has gone on by itself, and after what: ``2 (1 preempted, 1 node failure)``."""
    parts = [f"{times} {line(reason, 40).replace('_', ' ')}" for reason, times in recovered.items() if times]
    return f"{sum(recovered.values())} ({', '.join(parts)})" if parts else ""


def metrics_of(metrics: Any) -> dict[str, Any]:
    """Return metrics by name, nested ones by the names of both; what is no number and no text is left out."""
    found = ((name, value) for name, value in _flat(metrics, "", 3) if metric_words(name, value))
    return dict(islice(found, MOST_METRICS))


def attempts_of(status: JobStatus | None) -> list[tuple[str, str, str, str]]:
    """Return of each earlier attempt its number, how it ended, for how long it ran, and where."""
    return [
        (
            line(past.get("attempt"), 10),
            (line(past.get("kind") or past.get("reason")) or "ended").replace("_", " "),
            _between(past),
            line(past.get("host"), 60),
        )
        for past in (status.attempts if status else ())
        if isinstance(past, dict)
    ]


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and depth:
        for key, item in list(value.items())[: 10 * MOST_METRICS]:
            yield from _flat(item, f"{name}.{key}" if name else str(key), depth - 1)
    elif name:
        yield name, value


def _try(task: JobTask | None) -> str:
    if task is None or not task.try_number or (task.try_number == 1 and (task.tries or 1) == 1):
        return ""
    return f"{task.try_number} of {task.tries}" if (task.tries or 0) >= task.try_number else str(task.try_number)


def _cluster(conn_id: str, cluster: str) -> str:
    return f"{conn_id} ({cluster})" if conn_id and cluster and cluster != conn_id else conn_id or cluster


def _elements(status: JobStatus) -> str:
    if not status.elements:
        return ""
    states = [state for state, _ in status.elements]
    counts = [f"{states.count(state)} {state.value.lower()}" for state in JobState if state in states]
    return f"{len(states)}: {', '.join(counts)}"


def _gpus(status: JobStatus, handle: JobHandle | None) -> str:
    if not status.gpus:
        return str(handle.gpus) if handle and handle.gpus else ""
    indexes = ", ".join(map(str, status.gpus[:_MOST_GPUS])) + (", …" if len(status.gpus) > _MOST_GPUS else "")
    return f"{len(status.gpus)} ({'index' if len(status.gpus) == 1 else 'indexes'} {indexes})"


def run_seconds(status: JobStatus | None) -> float | None:
    """Return how long the code of a job has run, as far as known."""
    if status is None:
        return None
    try:
        seconds = status.run_seconds
    except (TypeError, ValueError):
        seconds = None
    return number_of(status.seconds.get("running")) if seconds is None else seconds


def _ran_for(status: JobStatus) -> str:
    seconds = run_seconds(status)
    return duration_text(seconds) if seconds is not None and seconds >= 0 else ""


def _before(status: JobStatus) -> str:
    words = (("queued", "in the queue"), ("staging", "for its inputs"), ("building", "for its environment"))
    parts = [
        f"{duration_text(seconds)} {what}"
        for name, what in words
        if (seconds := number_of(status.seconds.get(name))) is not None and seconds >= _SHORTEST_PART_S
    ]
    return ", ".join(parts)


def _gpu_use(status: JobStatus) -> str:
    mean, peak = (number_of(status.usage.get(name)) for name in ("gpu_mean_percent", "gpu_peak_percent"))
    if mean is None:
        return ""
    parts = [f"{mean:.0f} % in the mean"]
    if peak is not None:
        parts.append(f"{peak:.0f} % at most")
    idle = number_of(status.seconds.get("idle"))
    if idle is not None and idle >= 60:
        parts.append(f"idle for {duration_text(idle)}")
    return ", ".join(parts)


def _gpu_memory(status: JobStatus) -> str:
    gpus = status.usage.get("gpus")
    rows = [gpu for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    peaks = [(number_of(gpu.get("peak_memory_bytes")), number_of(gpu.get("memory_bytes"))) for gpu in rows]
    peak, size = max(((peak, size or 0.0) for peak, size in peaks if peak), default=(None, 0.0))
    if peak is None:
        return ""
    most = f"{peak / 2**30:.1f} GiB at most"
    return most + (f" of {size / 2**30:.1f} GiB" if size >= peak else "") + (" on one GPU" if len(rows) > 1 else "")


def _energy(status: JobStatus) -> str:
    joules = number_of(status.usage.get("energy_j"))
    return f"{joules / 3.6e6:.2f} kWh" if joules is not None and joules >= 36_000 else ""


def _processors(status: JobStatus) -> str:
    mean, cpus = number_of(status.usage.get("cpus_mean")), number_of(status.usage.get("cpus"))
    if mean is None:
        return ""
    return f"{mean:.1f} {f'of {cpus:.0f} ' if cpus else ''}busy in the mean"


def _between(past: PastAttempt) -> str:
    try:
        began, ended = (datetime.fromisoformat(str(past.get(name))) for name in ("started_at", "ended_at"))
        seconds = (ended - began).total_seconds()
    except (TypeError, ValueError):
        return ""
    return duration_text(seconds) if seconds >= 0 else ""
