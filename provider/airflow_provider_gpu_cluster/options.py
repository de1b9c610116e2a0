"""The options in section ``[gpu_cluster]`` of Airflow's configuration; ``get_provider_info.py`` declares them."""

from __future__ import annotations

from airflow.sdk.configuration import conf

SECTION = "gpu_cluster"


def metrics_token() -> str | None:
    """Return the token with which the metrics may be read; None when there is none."""
    # What a command prints ends with a line break.
    text: str = conf.get(SECTION, "metrics_token", fallback="") or ""
    return text.strip() or None


def metrics_conn_ids() -> list[str]:
    """Return the connections whose clusters are in the metrics; empty for all that can be found."""
    text: str = conf.get(SECTION, "metrics_conn_ids", fallback="") or ""
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def keep_jobs_days() -> float | None:
    """Return after how many days rows of the table of all jobs are deleted; None for never."""
    days: float = conf.getfloat(SECTION, "keep_jobs_days", fallback=0.0)
    return days if days > 0 else None
