"""Who wants a task to end: a user, or only Airflow's own machinery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from airflow.sdk import Context

log = structlog.get_logger(__name__)

# The task instance does not exist any more, and with it whoever could take the job up again.
GONE = "gone"

# States that a user gives to a running task: marked failed, success or skipped, or cleared (restarting);
# removed and upstream_failed follow from what a user did to the DAG or to the tasks before it.
USER_STATES = frozenset({"failed", "success", "skipped", "restarting", "removed", "upstream_failed", GONE})


def asked_by_a_user(context: Context) -> bool:
    """
    Tell from the state of a running task whether a user wants it to end.

    Its process gets the same signal when a user marks or clears the task, when a worker is shut down, and
    when the API server cannot be reached; only the state tells them apart. A worker that is shut down leaves
    it ``running``; a scheduler that takes tasks over makes it none, ``scheduled``, ``queued`` or
    ``up_for_retry``. If it cannot be read, nobody is known to have asked.
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
    """Return the present state of a task instance: Airflow's word for it, ``None``, or :data:`GONE`."""
    states = get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    mapped = ti.map_index is not None and ti.map_index >= 0
    key = f"{ti.task_id}_{ti.map_index}" if mapped else ti.task_id
    return str(states.get(ti.run_id, {}).get(key, GONE))
