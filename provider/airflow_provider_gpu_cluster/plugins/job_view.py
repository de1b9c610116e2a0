"""What the page of a GPU job shows: a job's status as labels and text for a person. No IO."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from airflow._shared.secrets_masker import redact as redact_in_server
from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_provider_gpu_cluster.connection.words import readable
from airflow_provider_gpu_cluster.jobs.advice import advice_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.idle import idle_text
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.plugins.job_lookup import JobAnswer

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import ActLine
    from airflow_provider_gpu_cluster.gpu_run.protocol.recovery import PastAttempt

_MOST_GPUS = 16


def job_view(handle: JobHandle, answer: JobAnswer, now: datetime) -> dict[str, Any]:
    """
    Return what the page shows, as plain JSON values.

    :param handle: the job, as the task keeps it.
    :param answer: what its cluster said.
    :param now: the time, for durations that are still growing.
    """
    # What the job was given is hidden on the cluster already; this hides what the connection to it holds.
    # Airflow's own part of the API server, and the SDK that hooks belong to, each know some secrets.
    view = redact_in_server(redact(_view(handle, answer, now), max_depth=10), max_depth=10)
    return cast("dict[str, Any]", view)


def _view(handle: JobHandle, answer: JobAnswer, now: datetime) -> dict[str, Any]:
    status = answer.status
    return {
        "job_id": handle.job_id,
        "state": str(status.state if status else JobState.UNKNOWN if answer.error else "ASKING"),
        "headline": _headline(status) if status else "",
        "remedy": readable(status.remedy) if status else "",
        "idle": _idle(status),
        "advice": [readable(sentence) for sentence in advice_of(status)] if status else [],
        "error": answer.error,
        "asked": status is not None,
        "final": status is not None and status.final,
        "facts": _facts(handle, status, now),
        "progress": _progress(status),
        "elements": _elements(status),
        "attempts": _attempts(status),
        "acts": [_act(line) for line in answer.acts],
        "log_tail": readable(status.log_tail) if status else "",
        "checked_at": _time_text(now.isoformat()),
    }


def _headline(status: JobStatus) -> str:
    parts = []
    if status.state is JobState.QUEUED and status.queue_place is not None:
        parts.append(f"Place {status.queue_place} in the cluster's queue.")
    if status.reason:
        finer = f", {status.kind}" if status.kind and status.kind != status.reason else ""
        parts.append(f"Reason: {f'{status.reason}{finer}'.replace('_', ' ')}.")
    if status.message:
        parts.append(status.message[:1].upper() + status.message[1:])
    return readable(" ".join(parts))


def _facts(handle: JobHandle, status: JobStatus | None, now: datetime) -> list[list[str]]:
    """Return label and text of each known fact."""
    facts: list[tuple[str, str | None]] = []
    if status:
        facts += [
            ("Attempt", str(status.attempt) if status.attempt else None),
            ("Went on by itself", _recovered(status)),
            ("Elements", str(handle.array_size) if handle.array_size else None),
            ("GPUs", _gpus(handle, status)),
            ("Host", status.host),
            ("Submitted", _time_text(status.submitted_at or handle.submitted_at)),
            ("Started", _time_text(status.started_at)),
            ("Ended", _time_text(status.ended_at)),
            ("Duration", _duration(status, now)),
            ("GPU-seconds", f"{status.gpu_seconds:,.1f}" if status.gpu_seconds is not None else None),
            *_use(status),
            ("Peak memory", _memory(status)),
            ("Exit code", str(status.exit_code) if status.exit_code is not None else None),
            ("Signal", str(status.signal) if status.signal is not None else None),
            ("Log size", _size(status.log_bytes)),
        ]
    else:
        facts += [("Submitted", _time_text(handle.submitted_at))]
    facts += [
        ("Connection", handle.gpu_cluster_conn_id),
        ("Engine", handle.engine),
        ("Directory", handle.job_dir),
    ]
    return [[label, readable(text)] for label, text in facts if text]


def _elements(status: JobStatus | None) -> list[list[str]]:
    """Return the state and the label of each element of an array."""
    return [
        [str(state), f"{index}: {state}" + (f", {reason.replace('_', ' ')}" if reason else "")]
        for index, (state, reason) in enumerate(status.elements if status else ())
    ]


def _attempts(status: JobStatus | None) -> list[list[str]]:
    """Return of each earlier attempt its number, how it ended, after how long, where, and its newest checkpoint."""
    return [
        [
            readable(str(text))[:300] if text is not None else ""
            for text in (
                past.get("attempt"),
                _end_of_attempt(past),
                _time_between(past.get("started_at"), past.get("ended_at")),
                past.get("host"),
                past.get("checkpoint"),
            )
        ]
        for past in (status.attempts if status else ())
    ]


def _end_of_attempt(past: PastAttempt) -> str:
    why = (past.get("kind") or past.get("reason") or "ended").replace("_", " ")
    return f"{why}: {past['message']}" if past.get("message") else why


def _idle(status: JobStatus | None) -> str:
    if status is None or status.state is not JobState.RUNNING or status.idle is None:
        return ""
    return readable(f"This job is idle: {idle_text(status.idle)}.")


def _use(status: JobStatus) -> list[tuple[str, str | None]]:
    """Return what it has used of its GPUs and its host, and how long its parts took."""
    usage, seconds = status.usage, status.seconds
    mean, peak = usage.get("gpu_mean_percent"), usage.get("gpu_peak_percent")
    use = None if mean is None or peak is None else f"{mean:.0f} % in the mean, {peak:.0f} % at most"
    busy, cpus = usage.get("cpus_mean"), usage.get("cpus")
    energy = usage.get("energy_j")
    parts = [
        (seconds.get("queued"), "in the queue"),
        (seconds.get("staging"), "staging"),
        (seconds.get("building"), "building"),
        (seconds.get("idle"), "with idle GPUs"),
    ]
    took = [f"{_seconds_text(part_s, is_over=True)} {label}" for part_s, label in parts if part_s]
    return [
        ("GPU use", use or _why_not_measured(status)),
        ("GPU memory", _gpu_memory(status)),
        ("Energy", None if energy is None else f"{energy / 3.6e6:.3g} kWh"),
        ("Processors", None if busy is None or not cpus else f"{busy:.1f} of {cpus} busy in the mean"),
        ("Of the time", ", ".join(took) or None),
    ]


def _why_not_measured(status: JobStatus) -> str | None:
    why_not = status.usage.get("why_not")
    return f"not measured: {why_not}" if why_not else None


def _gpu_memory(status: JobStatus) -> str | None:
    """Return the most memory in use on each GPU."""
    gpus = [gpu for gpu in status.usage.get("gpus", []) if "peak_memory_bytes" in gpu]
    totals = {gpu.get("memory_bytes") for gpu in gpus}
    if not gpus:
        return None
    peaks = ", ".join(str(_size(gpu["peak_memory_bytes"])) for gpu in gpus[:_MOST_GPUS])
    more = f" and {len(gpus) - _MOST_GPUS} more" if len(gpus) > _MOST_GPUS else ""
    total = _size(totals.pop()) if len(totals) == 1 else None
    return f"{peaks}{more} at most" + (f", of {total}{' each' if len(gpus) > 1 else ''}" if total else "")


def _memory(status: JobStatus) -> str | None:
    limit = _size(status.memory_limit_bytes)
    return _size(status.peak_memory_bytes) if limit is None else f"{_size(status.peak_memory_bytes)} of {limit}"


def _recovered(status: JobStatus) -> str | None:
    return ", ".join(f"{reason.replace('_', ' ')} ({times})" for reason, times in status.recovered.items()) or None


def _gpus(handle: JobHandle, status: JobStatus) -> str:
    if not status.gpus:
        return str(handle.gpus)
    word = "index" if len(status.gpus) == 1 else "indexes"
    return f"{len(status.gpus)} ({word} {', '.join(map(str, status.gpus))})"


def _act(line: ActLine) -> list[str]:
    """Return when an act was, what, on which attempt, by whom, from where, and more about it."""
    told = [line.get("through", ""), f"try {line['try_number']}" if "try_number" in line else ""]
    means = ", ".join(filter(None, told))
    who = line.get("by", "")
    cells = [
        _time_text_or_as_it_is(line["at"]),
        line["act"],
        str(line.get("attempt", "")),
        f"{who} ({means})" if means else who,
        " from ".join(filter(None, [line.get("host", ""), line.get("address", "")])),
        line.get("details", ""),
    ]
    return [readable(cell) for cell in cells]


def _time_text_or_as_it_is(text: str) -> str:
    try:
        return _time_text(text) or text
    except ValueError:
        return text


def _progress(status: JobStatus | None) -> dict[str, Any] | None:
    """Return the job's last line of progress: how far it is, and all other values as text."""
    if status is None or not isinstance(status.progress, dict) or not status.progress:
        return None
    rest = dict(status.progress)
    step, total = rest.get("step"), rest.get("total")
    shown: dict[str, Any] = {"step": None, "total": None, "label": ""}
    if _is_number(step) and _is_number(total) and total > 0:
        del rest["step"], rest["total"]
        shown = {"step": min(max(step, 0), total), "total": total, "label": f"{step:g} of {total:g}"}
    values = [[readable(str(name))[:100], _value_text(value)] for name, value in list(rest.items())[:20]]
    return {**shown, "values": values}


def _value_text(value: Any) -> str:
    return readable(f"{value:.6g}" if isinstance(value, float) else str(value))[:200]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _duration(status: JobStatus, now: datetime) -> str | None:
    seconds = status.run_seconds
    if seconds is None:
        if status.started_at is None or status.final:
            return None
        seconds = (now - datetime.fromisoformat(status.started_at)).total_seconds()
    return _seconds_text(seconds, is_over=status.ended_at is not None)


def _time_between(start: str | None, end: str | None) -> str | None:
    if start is None or end is None:
        return None
    try:
        started, ended = datetime.fromisoformat(start), datetime.fromisoformat(end)
        return _seconds_text((ended - started).total_seconds(), is_over=True)
    except (ValueError, TypeError):
        return None


def _seconds_text(seconds: float, *, is_over: bool) -> str:
    whole = max(int(seconds), 0)
    if seconds < 10 and is_over:
        return f"{max(seconds, 0):.1f} s"
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02} min {rest:02} s"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _time_text(text: str | None) -> str | None:
    if text is None:
        return None
    return f"{datetime.fromisoformat(text).astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _size(count: int | None) -> str | None:
    if count is None:
        return None
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
