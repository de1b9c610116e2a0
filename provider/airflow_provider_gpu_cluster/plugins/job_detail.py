"""All that is told of one job, as plain JSON values in the form of :class:`.job_model.JobDetail`. No IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.jobs.advice import advice_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.idle import idle_text
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.life import life
from airflow_provider_gpu_cluster.plugins.progress_view import progress_view
from airflow_provider_gpu_cluster.plugins.shown import shown

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.description import Description

_MOST_TEXT = 4000
_OF_ATTEMPT = (
    "attempt",
    "state",
    "started_at",
    "ended_at",
    "reason",
    "kind",
    "message",
    "remedy",
    "host",
    "checkpoint",
    "exit_code",
    "signal",
    "gpu_seconds",
)
_ASKED = (
    "gpus",
    "gpu_type",
    "nodes",
    "cpus",
    "memory_bytes",
    "time_limit_s",
    "priority",
    "partition",
    "account",
    "qos",
    "constraint",
)
_USED = (
    "gpu_mean_percent",
    "gpu_peak_percent",
    "gpu_seconds_used",
    "gpu_seconds_idle",
    "cpus_mean",
    "cpus",
    "energy_j",
    "written_bytes",
    "why_not",
)


@dataclass(frozen=True)
class Rights:
    """What a user may do with a job."""

    read_log: bool = False
    cancel: bool = False
    clear: bool = False


@dataclass(frozen=True)
class Known:
    """
    What is known of a job.

    :param status: what its cluster said last; None if it has not answered.
    :param description: what the job runs, likewise.
    :param as_of: when it said so.
    :param error: why it cannot be asked now, and ``error_since``, since when.
    :param seconds_left: how long the job's steps will take, by the pace of those that were seen.
    :param row: its row of the table of jobs.
    :param earlier: rows of the jobs that the same task instance had launched before; None if there is no table.
    """

    status: JobStatus | None = None
    description: Description | None = None
    as_of: datetime | None = None
    error: str | None = None
    error_since: datetime | None = None
    seconds_left: float | None = None
    row: Mapping[str, Any] | None = None
    earlier: Iterable[Mapping[str, Any]] | None = None


def job_detail(
    handle: JobHandle,
    known: Known,
    rights: Rights | None = None,
    *,
    element: int | None = None,
    element_count: int | None = None,
) -> dict[str, Any]:
    """
    Return what is told of a job.

    :param handle: the job, as the task keeps it.
    :param rights: what the user may do; of one who may not read logs, what the job told is left out.
    :param element: the index of the job in its array, and ``element_count``, how many the array has.
    """
    rights = rights or Rights()
    detail = {**_of_job(handle, known), "element": element, "element_count": element_count, "may": vars(rights)}
    if not rights.read_log:
        detail = without_what_it_told(detail)
    return shown(detail)


def without_what_it_told(detail: dict[str, Any]) -> dict[str, Any]:
    """Return the same for one who may not read logs: without what the job has printed, written or reported."""
    attempts = [{**attempt, "message": None} for attempt in detail["attempts"]]
    hidden = {"message": None, "progress": None, "metrics": None, "notes": [], "attempts": attempts}
    is_over = detail["is_final"]
    return {**detail, **hidden, "headline": _reason_text(detail) if is_over else detail["headline"]}


def _of_job(handle: JobHandle, known: Known) -> dict[str, Any]:
    row: Mapping[str, Any] = known.row or {}
    status = known.status or _of_row(handle, row)
    told: Mapping[str, Any] = known.description or {}
    spec: Mapping[str, Any] = told.get("spec") or {}
    message = _text(status.message)
    attempts = _attempts(handle, status, told)
    acts = [_act(line) for line in told.get("acts") or ()]
    submitted_at = status.submitted_at or handle.submitted_at
    detail: dict[str, Any] = {
        "job_id": handle.job_id,
        "conn_id": handle.gpu_cluster_conn_id,
        "engine": handle.engine,
        "job_dir": handle.job_dir,
        "state": str(status.state),
        "is_final": status.final,
        "reason": _text(status.reason),
        "kind": _text(status.kind),
        "remedy": _text(status.remedy),
        "message": message,
        "error": _text(known.error),
        "error_since": _time(known.error_since),
        "as_of": _time(known.as_of),
        "attempt": status.attempt or None,
        "attempts": attempts,
        "recovered": dict(status.recovered),
        "queue": _queue(status),
        "progress": progress_view(status.progress, None if status.final else known.seconds_left),
        "gpus": list(status.gpus),
        "gpu_count": handle.gpus * (spec.get("nodes") or 1) if isinstance(spec.get("nodes"), int) else handle.gpus,
        "host": _text(status.host),
        "nodes": _nodes(status),
        "resources": {"asked": _asked(handle, status, spec), "used": _used(status)},
        "usage": dict(status.usage),
        "seconds": dict(status.seconds),
        "command": _command(spec),
        "script": told.get("script") or None,
        "code": [_code(one) for one in told.get("code") or ()],
        "env_names": list(told.get("env_names") or ()),
        "submitted_at": submitted_at,
        "started_at": status.started_at,
        "ended_at": status.ended_at,
        "exit_code": status.exit_code,
        "signal": status.signal,
        "log_bytes": None if known.status is None else status.log_bytes,
        "log_attempt": status.log_number or None,
        "array": _array(handle, status),
        "elements": [[str(state), reason] for state, reason in status.elements] or None,
        "life": []
        if handle.array_size
        else life(
            submitted_at=submitted_at,
            attempts=attempts,
            acts=acts,
            seconds=status.seconds,
            state=str(status.state),
            ended_at=status.ended_at,
            engine=handle.engine,
        ),
        "idle": _idle(status),
        "advice": [cleaned(sentence) for sentence in advice_of(status)],
        "notes": [cleaned(note) for note in (*status.notes, *filter(None, [told.get("problem")]))],
        "metrics": (told.get("metrics") or row.get("metrics")) if status.final else None,
        "acts": acts,
        "earlier": None if known.earlier is None else [_earlier(one) for one in known.earlier],
    }
    return {**detail, "headline": _headline(detail, known)}


def _of_row(handle: JobHandle, row: Mapping[str, Any]) -> JobStatus:
    """Return what the table last knew, as a status; all that it does not know is unknown."""
    try:
        state = JobState(row.get("state"))
    except ValueError:
        return JobStatus(handle.job_id, JobState.UNKNOWN)
    return JobStatus(
        handle.job_id,
        state,
        reason=row.get("reason"),
        kind=row.get("kind"),
        attempt=row.get("attempt") or 0,
        submitted_at=row.get("submitted_at"),
        started_at=row.get("started_at"),
        ended_at=row.get("ended_at"),
        host=row.get("host"),
        gpu_seconds=row.get("gpu_seconds"),
        progress=row.get("progress"),
    )


def _headline(detail: dict[str, Any], known: Known) -> str:
    """Return how the job stands, in a sentence or two."""
    if known.status is None and not detail["is_final"]:
        return "" if known.error else "The cluster has not answered yet."
    message = detail["message"] or ""
    parts = []
    queue = detail["queue"]
    if queue is not None and queue["place"] is not None:
        parts.append(f"Place {queue['place']} in the cluster's queue.")
    if detail["reason"]:
        parts.append(_reason_text(detail))
    if message:
        parts.append(f"{message[:1].upper()}{message[1:]}")
    return " ".join(parts)


def _reason_text(detail: dict[str, Any]) -> str:
    reason, kind = detail["reason"], detail["kind"]
    if not reason:
        return ""
    finer = f", {kind}" if kind and kind != reason else ""
    return f"Reason: {reason}{finer}.".replace("_", " ")


def _attempts(handle: JobHandle, status: JobStatus, told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all attempts, as the description has them, and else the earlier ones of this try with the present one."""
    found: dict[Any, dict[str, Any]] = {}
    for past in status.attempts:
        found[past.get("attempt")] = dict(past)
    here = handle.gpu_cluster_conn_id
    for one in told.get("attempts") or ():
        if found.get(one.get("attempt"), {}).get("conn_id", here) != here:
            # It was taken back here while it waited, and then was on that cluster.
            continue
        known = {name: value for name, value in one.items() if value is not None}
        found[one.get("attempt")] = {**found.get(one.get("attempt"), {}), **known}
    if status.attempt:
        # Newer than the description, perhaps.
        present = {name: getattr(status, name, None) for name in _OF_ATTEMPT}
        known = {name: value for name, value in present.items() if value is not None}
        found[status.attempt] = {**found.get(status.attempt, {}), **known, "state": str(status.state)}
    return [
        {
            **{name: _text(one.get(name)) for name in _OF_ATTEMPT},
            "conn_id": _text(one.get("conn_id")) or here,
        }
        for number, one in sorted(found.items(), key=lambda item: item[0] or 0)
        if isinstance(number, int)
    ]


def _queue(status: JobStatus) -> dict[str, Any] | None:
    if status.state is not JobState.QUEUED:
        return None
    since = status.attempts[-1].get("ended_at") if status.attempts else status.submitted_at
    return {
        "place": status.queue_place,
        "since": since,
        "expected_start": status.expected_start,
        "why": _text(status.message) or "",
    }


def _nodes(status: JobStatus) -> list[str]:
    """Return the nodes whose GPUs were measured; the host where none is named."""
    nodes = dict.fromkeys(_text(gpu["host"]) for gpu in status.usage.get("gpus", []) if gpu.get("host"))
    return list(filter(None, nodes or [_text(status.host)]))


def _asked(handle: JobHandle, status: JobStatus, spec: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: _text(spec[name]) for name in _ASKED if spec.get(name) is not None}
    return {"gpus": handle.gpus, **status.asked, **asked}


def _used(status: JobStatus) -> dict[str, Any]:
    usage: Mapping[str, Any] = status.usage
    used = {name: usage[name] for name in _USED if usage.get(name) is not None}
    memory = [gpu["peak_memory_bytes"] for gpu in status.usage.get("gpus", []) if "peak_memory_bytes" in gpu]
    totals = [gpu["memory_bytes"] for gpu in status.usage.get("gpus", []) if "memory_bytes" in gpu]
    others = {
        "run_s": status.seconds.get("running", status.run_seconds),
        "gpu_seconds": status.gpu_seconds,
        "peak_memory_bytes": status.peak_memory_bytes,
        "memory_limit_bytes": status.memory_limit_bytes,
        "gpu_peak_memory_bytes": max(memory, default=None),
        "gpu_memory_bytes": max(totals, default=None),
    }
    return {**used, **{name: value for name, value in others.items() if value is not None}}


def _command(spec: Mapping[str, Any]) -> str | None:
    """Return the command, or the script and its arguments, as they are in the DAG."""
    if spec.get("command"):
        return cleaned(str(spec["command"]), 10 * _MOST_TEXT)
    if not spec.get("entry_script"):
        return None
    arguments = spec.get("script_args")
    words = [spec["entry_script"], *(arguments if isinstance(arguments, list) else ())]
    return cleaned(" ".join(map(str, words)), 10 * _MOST_TEXT)


def _code(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(one.get(name)) for name in ("place", "source", "commit", "checksum", "files", "bytes")}


def _array(handle: JobHandle, status: JobStatus) -> dict[str, Any] | None:
    if not handle.array_size:
        return None
    names = ("job_id", "first", "count")
    parts = [
        {**{name: getattr(part, name) for name in names}, "conn_id": part.gpu_cluster_conn_id} for part in handle.parts
    ]
    counts = dict(Counter(str(state) for state, _ in status.elements))
    return {"size": handle.array_size, "counts": counts, "parts": parts or None}


def _idle(status: JobStatus) -> str | None:
    if status.state is not JobState.RUNNING or status.idle is None:
        return None
    return cleaned(f"This job is idle: {idle_text(status.idle)}.")


def _act(line: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: _text(line.get(name)) or "" for name in ("at", "act", "by", "through", "host", "address", "details")}
    return {**texts, "attempt": line.get("attempt"), "try_number": line.get("try_number")}


def _earlier(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("job_id", "conn_id", "state", "attempt", "submitted_at")}


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _text(value: Any, most: int = _MOST_TEXT) -> Any:
    """Return a value; if it is a text, so that a page can show it; None for an empty one."""
    return (cleaned(value, most) or None) if isinstance(value, str) else value
