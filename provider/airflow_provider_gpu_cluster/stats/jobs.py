"""What happens to jobs, in Airflow's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import notices
from airflow_provider_gpu_cluster.stats import metrics
from airflow_provider_gpu_cluster.stats.sending import count, time

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import Counted

_BY_STATE = {
    protocol.SUCCEEDED: metrics.JOBS_SUCCEEDED,
    protocol.FAILED: metrics.JOBS_FAILED,
    protocol.CANCELLED: metrics.JOBS_CANCELLED,
    protocol.LOST: metrics.JOBS_LOST,
}
SUCCESS = "success"


def count_launch(conn_id: str, record: Mapping[str, Any] | None, *, launched: int) -> None:
    """
    Count a launch.

    :param record: who has asked for it.
    :param launched: how many jobs it made; 0 if it found what it asked for.
    """
    asker = record or {}
    tags = {"conn_id": conn_id, "dag_id": asker.get("dag_id"), "task_id": asker.get("task_id")}
    if launched:
        count(metrics.JOBS_SUBMITTED, tags, launched)
    else:
        count(metrics.JOBS_JOINED, tags)


def count_all(conn_id: str, events: Sequence[Counted] | None) -> None:
    """Count what a cluster says is to be counted by this process."""
    for event in events or ():
        _count(conn_id, event)


def _count(conn_id: str, event: Counted) -> None:
    tags = {"conn_id": conn_id, "dag_id": event.get("dag_id"), "task_id": event.get("task_id")}
    seconds: Mapping[str, Any] = event.get("seconds", {})
    kind = event["event"]
    if kind == notices.STARTED:
        count(metrics.JOBS_STARTED, tags)
        time(metrics.QUEUE_DURATION, tags, seconds.get("queued"))
    elif kind == notices.ENDED:
        with_reason = {**tags, "reason": event.get("reason") or SUCCESS}
        count(metrics.JOBS_ENDED, with_reason)
        if event.get("state") in _BY_STATE:
            count(_BY_STATE[event["state"]], tags)
        time(metrics.STAGING_DURATION, tags, seconds.get("staging"))
        time(metrics.BUILD_DURATION, tags, seconds.get("building"))
        time(metrics.JOB_DURATION, with_reason, seconds.get("running"))
        count(metrics.GPU_SECONDS, tags, event.get("gpu_seconds") or 0.0)
    elif kind == notices.RECOVERED:
        count(metrics.JOBS_RECOVERED, {**tags, "reason": event.get("reason")})
        count(metrics.GPU_SECONDS, tags, event.get("gpu_seconds") or 0.0)
