"""The end of a task from outside: what is noted for it, and who wants it, a user or only Airflow's own machinery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from airflow.sdk import Context

from airflow_provider_gpu_cluster.links import KILL_XCOM_KEY

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

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


def note_job(context: Context, hook: GpuClusterHook, job_id: str, *, forerunners: Sequence[str]) -> None:
    """
    Note which job is to end when a user ends the task, before it is launched.

    :param forerunners: jobs of this task from before a user cleared it, which end now, should nobody else have seen to
        that; most of them were never there.
    """
    note = {"gpu_cluster_conn_id": hook.gpu_cluster_conn_id, "job_id": job_id}
    context["ti"].xcom_push(key=KILL_XCOM_KEY, value=note)
    if forerunners:
        hook.cluster.cancel(forerunners, requested_by="Airflow, as a user cleared its task")


def state_of(ti: Any, get_task_states: Callable[..., dict[str, Any]]) -> str:
    """Return the present state of a task instance: Airflow's word for it, ``None``, or :data:`GONE`."""
    states = get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    mapped = ti.map_index is not None and ti.map_index >= 0
    key = f"{ti.task_id}_{ti.map_index}" if mapped else ti.task_id
    return str(states.get(ti.run_id, {}).get(key, GONE))
