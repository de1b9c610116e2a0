"""What is said about a job that leaves its GPUs idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.gpu_run.protocol.idle_policy import CANCEL, WHOLE
from airflow_provider_gpu_cluster.jobs.progress import duration_text

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.usage import IdleNote


def idle_text(note: IdleNote) -> str:
    """Return how long a job has been idle, and what follows, as a sentence that begins with ``its``."""
    used = f"its GPU use was {note['percent']:.3g} % in the mean for {duration_text(note['idle_s'])}"
    limit = f"less than min_gpu_utilization={note['min_percent']:g}"
    return f"{used}, {limit}; {_what_follows(note)}"


def _what_follows(note: IdleNote) -> str:
    if note["on_idle"] != CANCEL:
        return "it is left to run, since on_idle is 'warn'"
    if note["level"] == WHOLE:
        return "it is ended now, since on_idle is 'cancel'"
    left_s = max(1.0, note["window_s"] - note["idle_s"])
    return f"if that goes on for another {duration_text(left_s)}, it is ended, since on_idle is 'cancel'"
