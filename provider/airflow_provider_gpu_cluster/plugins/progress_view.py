"""How far a job is, from the last line of its PROGRESS_FILE: whatever it has written, nothing here raises."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.jobs.progress import Pace

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.jobs.status import JobStatus

_MOST_VALUES = 200
_MOST_NAME, _MOST_VALUE = 100, 200
# Beyond this, a float does not distinguish whole numbers.
_MOST_STEPS = 1e15
_LONGEST_S = 365 * 86400.0


def progress_view(progress: Any, seconds_left: float | None) -> dict[str, Any] | None:
    """Return the progress as a page shows it; None when there is none."""
    if not isinstance(progress, dict) or not progress:
        return None
    rest = dict(progress)
    step, total = rest.get("step"), rest.get("total")
    view: dict[str, Any] = {"step": None, "total": None, "label": ""}
    if _is_count(step) and _is_count(total) and total > 0:
        del rest["step"], rest["total"]
        view = {"step": min(max(step, 0), total), "total": total, "label": f"{_count(step)} of {_count(total)}"}
    values = {cleaned(str(name), _MOST_NAME): _value(value) for name, value in list(rest.items())[:_MOST_VALUES]}
    return {**view, "values": values, "seconds_left": seconds_left if view["total"] else None}


def seconds_left(status: JobStatus, pace: Pace | None, now: datetime) -> float | None:
    """
    Return how long the rest of a job's steps will take, in seconds; None while that is not known.

    :param pace: of the steps that were seen. Without one, the first attempt tells it, which began with the first step.
    """
    progress = status.progress
    if not isinstance(progress, dict) or status.final or status.started_at is None:
        return None
    step, total = progress.get("step"), progress.get("total")
    if not (_is_count(step) and _is_count(total) and 0 < step <= total):
        return None
    rate = pace.steps_per_s if pace is not None else None
    if rate is None and status.attempt == 1 and not status.elements:
        ran_s = (now - datetime.fromisoformat(status.started_at)).total_seconds()
        rate = step / ran_s if ran_s > 0 else None
    left_s = (total - step) / rate if rate else None
    return left_s if left_s is not None and left_s < _LONGEST_S else None


def _is_count(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST_STEPS


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _value(value: Any) -> float | str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf:
        # What JavaScript cannot hold exactly is shown as it was written.
        return value if isinstance(value, float) or abs(value) < _MOST_STEPS else cleaned(str(value)[:_MOST_VALUE])
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return cleaned(str(value), _MOST_VALUE)
