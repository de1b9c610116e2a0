"""Tells whether a user or only Airflow itself wants a task to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from airflow.sdk import Context

log = structlog.get_logger(__name__)

# The task instance no longer exists, so no retry can reattach to the job.
GONE = "gone"

# States that a running task gets from a user: marked failed, success or skipped, or cleared (restarting);
# removed and upstream_failed follow from what a user did to the DAG or to upstream tasks.
USER_STATES = frozenset({"failed", "success", "skipped", "restarting", "removed", "upstream_failed", GONE})


def asked_by_a_user(context: Context) -> bool:
    """
    Return whether a user wants a running task to end, judging by the task's state.

    The task's process gets the same signal when a user marks or clears the task, when a worker is shut down, and
    when the API server cannot be reached; only the state distinguishes these. A worker that is shut down leaves
    the state ``running``; a scheduler that adopts tasks sets it to none, ``scheduled``, ``queued`` or
    ``up_for_retry``. If the state cannot be read, assume that no user has asked.
    """
    ti: Any = context["ti"]
    try:
        state = state_of(ti, ti.get_task_states)
    except Exception as error:
        log.warning("State of the task cannot be read; the GPU job is left alone", error=str(error))
        return False
    log.info("Task was told to stop", state=state)
    return state in USER_STATES


def state_of(ti: Any, get_task_states: Callable[..., dict[str, Any]]) -> str:
    """Return the current state of a task instance: Airflow's name for it, ``None``, or :data:`GONE`."""
    states = get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    mapped = ti.map_index is not None and ti.map_index >= 0
    key = f"{ti.task_id}_{ti.map_index}" if mapped else ti.task_id
    return str(states.get(ti.run_id, {}).get(key, GONE))
