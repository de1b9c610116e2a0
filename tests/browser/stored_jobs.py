"""Puts jobs that never ran into the table of an Airflow, for lists of any length."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import create_engine, insert, select

from airflow_provider_gpu_cluster.job_table.search import search_text
from airflow_provider_gpu_cluster.job_table.tables import details, jobs
from tests.browser.site import Site

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
STATES = ("SUCCEEDED", "FAILED", "CANCELLED", "LOST")


def stored_job(number: int, **more: Any) -> dict[str, Any]:
    """Return a job that has ended, the later the higher its number."""
    state = STATES[number % 4]
    began = NOON + timedelta(minutes=number)
    row = {
        "conn_id": "far",
        "job_id": f"seen-stored-{number:06}",
        "dag_id": "seen",
        "run_id": f"scheduled__{number % 20}",
        "task_id": "stored",
        "map_index": -1,
        "engine": "host",
        "user_name": ("ada", "grace")[number % 2],
        "state": state,
        "reason": "user_error" if state == "FAILED" else None,
        "attempt": 1,
        "gpus": 1 + number % 4,
        "submitted_at": began,
        "started_at": began + timedelta(seconds=30),
        "ended_at": began + timedelta(hours=1, seconds=30),
        "gpu_seconds": 3600.0 * (1 + number % 4),
        "used_gpu_seconds": 1800.0,
        **more,
    }
    row["search_text"] = search_text([row["job_id"], row["dag_id"], row["user_name"]], row.get("message"))
    return row


def store_jobs(site: Site, rows: Sequence[dict[str, Any]]) -> None:
    """Put jobs into the table."""
    engine = create_engine(f"sqlite:///{site.airflow.home}/airflow.db", connect_args={"timeout": 60})
    with engine.begin() as connection:
        connection.execute(insert(jobs), list(rows))
        names = [row["job_id"] for row in rows]
        keys = connection.scalars(select(jobs.c.id).where(jobs.c.job_id.in_(names))).all()
        connection.execute(insert(details), [{"job": key} for key in keys])
    engine.dispose()
