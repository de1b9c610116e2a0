"""What the submit operator and the sensor share when they are deferred: what needs a worker, and how to resume."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.listeners.listener import get_listener_manager
from airflow.sdk import BaseOperator, timezone
from airflow.sdk.configuration import conf

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook

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
    Return whether the scheduler may start a task's trigger by itself.

    It calls none of what a worker would call first.
    """
    kind = type(operator)
    return (
        not operator.on_execute_callback
        and operator._pre_execute_hook is None
        and kind.pre_execute is BaseOperator.pre_execute
    )


def needs_no_worker_to_end(operator: BaseOperator) -> bool:
    """
    Return whether a trigger may end a task by itself.

    Airflow 3.3 then makes no asset events of its outlets, calls none of what a worker would call last, and refuses the
    whole DAG where a plugin has listeners.
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
    """Return what is left of a task's time limit; Airflow 3.3 itself does not hold a deferred task to it."""
    if timeout is None:
        return None
    return max(timeout - (timezone.utcnow() - context["ti"].start_date), timedelta(0))


def is_of_another_job(end: WatchEnd, job_id: str, log: Log) -> bool:
    """
    Return whether what a trigger said is about another job than the one that its task waits for, and log it.

    On SQLite, Airflow 3.3 gives the id of a trigger that has just gone to the next one, and brings that one's task the
    event of the trigger before.
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
) -> None:
    """
    Take over from a trigger: show what output is left, and end as the job has.

    :param end: what the trigger said; without an error.
    :param pause: waits for that many seconds before the cluster is asked again.
    :raises GpuJobError: the job ended badly; the class says why.
    """
    from airflow_provider_gpu_cluster.watch.job_or_array import watch_of

    assert end.handle is not None
    assert end.status is not None
    watch = watch_of(hook.cluster, end.handle, log=log, reader=end.reader, memory=end.memory)
    status = end.status
    if end.reader is not None:
        status = watch.wait(pause=pause, longest_pause_s=10, unreachable_timeout_s=unreachable_timeout_s)
    watch.end(status)


def shortest_absence_s() -> float:
    """
    Return how long a task that has left its worker must stay away at least, in seconds: 7.5 in a stock Airflow.

    The news that a task's process has ended may reach the scheduler as much as ``[workers] min_heartbeat_interval``
    late (seen in Airflow 3.3). If the task is queued again by then, the scheduler takes that for a fault and fails it.
    """
    return 1.5 * float(conf.getfloat("workers", "min_heartbeat_interval"))
