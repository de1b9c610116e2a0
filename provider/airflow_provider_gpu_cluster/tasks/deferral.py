"""What the submit operator and the sensor share for deferral: when they need a worker, and how they resume."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.listeners.listener import get_listener_manager
from airflow.sdk import BaseOperator, timezone
from airflow.sdk.configuration import conf

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.tasks.handles import result_of

if TYPE_CHECKING:
    from airflow.sdk import Context

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.watch.end import WatchEnd

DEFAULT_DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)


def needs_no_worker_to_start(operator: BaseOperator) -> bool:
    """
    Return whether the scheduler may start a task's trigger without a worker.

    The scheduler does not call the hooks that a worker would call first.
    """
    kind = type(operator)
    return (
        not operator.on_execute_callback
        and operator._pre_execute_hook is None
        and kind.pre_execute is BaseOperator.pre_execute
    )


def needs_no_worker_to_end(operator: BaseOperator) -> bool:
    """
    Return whether a trigger may end a task without a worker.

    Airflow 3.3 then makes no asset events for its outlets, does not call the hooks that a worker would call last, and
    refuses the whole DAG if a plugin has listeners.
    """
    kind = type(operator)
    return (
        not get_listener_manager().has_listeners
        and not operator.outlets
        and not operator.on_success_callback
        and operator._post_execute_hook is None
        and kind.post_execute is BaseOperator.post_execute
    )


def time_left(context: Context, timeout: timedelta | None) -> timedelta | None:
    """Return what is left of a task's time limit; Airflow 3.3 itself does not enforce it for deferred tasks."""
    if timeout is None:
        return None
    return max(timeout - (timezone.utcnow() - context["ti"].start_date), timedelta(0))


def long_enough(timeout: timedelta) -> timedelta:
    """
    Return the time limit of a deferral: at least :func:`shortest_absence_s`.

    With less, the scheduler would queue the task again before it has noticed that the task's process has ended. The
    task would fail without being asked, and leave its job alone.
    """
    return max(timeout, timedelta(seconds=shortest_absence_s()))


def is_of_another_job(end: WatchEnd, job_id: str, log: Log) -> bool:
    """
    Return whether an event is about another job than the one that the task waits for, and log it if so.

    On SQLite, Airflow 3.3 reuses the id of a trigger that has just ended for the next trigger, and then delivers the
    old trigger's event to the new trigger's task.
    """
    if end.about in (None, job_id):
        return False
    log.warning("Received an event of another job; still waiting", job_id=job_id, other_job_id=end.about)
    return True


def resume(
    end: WatchEnd,
    hook: GpuClusterHook,
    *,
    log: Log,
    pause: Callable[[float], None],
    unreachable_timeout_s: float,
) -> dict[str, Any]:
    """
    Take over from a trigger: show the output that is left, and succeed or fail as the job did.

    :param end: the trigger's event; without an error.
    :param pause: waits for that many seconds before the cluster is asked again.
    :return: what the task returns.
    :raises GpuJobError: the job ended badly; the class says why.
    """
    from airflow_provider_gpu_cluster.watch.job_or_array import watch_of

    assert end.handle is not None
    assert end.status is not None
    watch = watch_of(
        hook.cluster, end.handle, log=log, reader=end.reader, memory=end.memory, open_cluster=hook.cluster_of
    )
    status = end.status
    if end.reader is not None:
        status = watch.wait(pause=pause, longest_pause_s=10, unreachable_timeout_s=unreachable_timeout_s)
    watch.end(status)
    return result_of(end.handle, status)


def shortest_absence_s() -> float:
    """
    Return how long a task that has left its worker must at least stay away, in seconds: 7.5 in a stock Airflow.

    The scheduler may learn up to ``[workers] min_heartbeat_interval`` late that a task's process has ended (seen in
    Airflow 3.3). If the task is queued again by then, the scheduler treats that as a fault and fails the task.
    """
    return 1.5 * float(conf.getfloat("workers", "min_heartbeat_interval"))
