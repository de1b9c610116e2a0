"""GpuJobSensor."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.identity import reader_of
from airflow_provider_gpu_cluster.job import JobHandle
from airflow_provider_gpu_cluster.job_watch import JobWatch
from airflow_provider_gpu_cluster.links import GpuJobLink
from airflow_provider_gpu_cluster.operators.base import JobArgument, handle_of, hook_for, publish, seconds

if TYPE_CHECKING:
    from airflow.sdk import Context

MEMORY_KEY = "gpu_job_watch"
UNREACHABLE_TIMEOUT = timedelta(hours=6)


def shortest_reschedule_s() -> float:
    """
    Return the shortest time after which a task can safely be rescheduled, in seconds: 7.5 in a stock Airflow.

    The news that a task's process has ended may reach the scheduler as much as ``[workers] min_heartbeat_interval``
    late (seen in Airflow 3.3). If the task is queued again by then, the scheduler takes that for a fault and fails it.
    """
    return 1.5 * float(conf.getfloat("workers", "min_heartbeat_interval"))


class GpuJobSensor(BaseSensorOperator):
    """
    Wait for a GPU job to end, and show its output in the task's log as it comes.

    By default it holds no worker slot between two looks (``mode="reschedule"``). It succeeds when the job has
    succeeded, and fails with the class of error that says why when it has not. A cluster that cannot be
    reached is no failure of the job: the sensor waits on.

    :param job: output of the task that launched the job. (templated)
    :param poke_interval: time between two looks at the job, in seconds or as a timedelta. In reschedule mode it is
        at least :func:`shortest_reschedule_s`; use ``mode="poke"`` for shorter ones.
    :param mode: ``reschedule`` or ``poke``, which holds its worker slot all the time.
    :param get_logs: show the job's output. Each line comes once.
    :param unreachable_timeout: how long the cluster may be unreachable, in seconds or as a timedelta, before
        the task fails. The job is left alone.
    :param gpu_cluster_conn_id: another connection to the job's cluster; by default the one it was launched
        with. (templated)
    :return: the job's handle, so that what takes the output of the launching task also takes this one's.
    """

    template_fields: Sequence[str] = ("job", "gpu_cluster_conn_id")
    operator_extra_links = (GpuJobLink(),)
    ui_color = "#e4ecf4"

    def __init__(
        self,
        *,
        job: JobArgument,
        poke_interval: timedelta | float = 30,
        mode: str = "reschedule",
        get_logs: bool = True,
        unreachable_timeout: float | timedelta = UNREACHABLE_TIMEOUT,
        gpu_cluster_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, mode=mode, **kwargs)
        if mode == "reschedule":
            self.poke_interval = max(self.poke_interval, shortest_reschedule_s())
        self.job = job
        self.get_logs = get_logs
        self.unreachable_timeout = unreachable_timeout
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        self._hook: GpuClusterHook | None = None

    def execute(self, context: Context) -> Any:
        """Poke, and keep the connection to the cluster for as long as this process lives."""
        try:
            return super().execute(context)
        finally:
            if self._hook is not None:
                self._hook.close()

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look at the job once."""
        handle = handle_of(self.job)
        if self._hook is None:
            self._hook = hook_for(handle, self.gpu_cluster_conn_id)
            publish(self, context, handle)  # Airflow has deleted what an earlier poke pushed
        reader = reader_of(context)
        memory = self._recall(context, handle, reader)
        watch = JobWatch(
            self._hook.cluster, handle, log=self.log, reader=reader if self.get_logs else None, memory=memory
        )
        try:
            status = watch.look()
        except GpuClusterConnectionError as error:
            if watch.unreachable_s(error) > seconds(self.unreachable_timeout):
                raise
            return False
        finally:
            self._remember(context, handle, reader, watch.memory)
        if not status.final:
            return False
        watch.end(status)
        return PokeReturnValue(True, handle.to_json())

    def _recall(self, context: Context, handle: JobHandle, reader: str) -> dict[str, Any]:
        """Return what the last poke remembered, unless that was of another job or before a clear."""
        stored: Any = context["task_state_store"].get(MEMORY_KEY) or {}
        if [stored.get("job_id"), stored.get("reader")] != [handle.job_id, reader]:
            return {}
        return dict(stored["memory"])

    def _remember(self, context: Context, handle: JobHandle, reader: str, memory: dict[str, Any]) -> None:
        value: Any = {"job_id": handle.job_id, "reader": reader, "memory": memory}
        context["task_state_store"].set(MEMORY_KEY, value)
