"""CancelGpuJobOperator."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.placement_options import check_placement
from airflow_provider_gpu_cluster.tasks.arguments import naming_arguments, naming_task
from airflow_provider_gpu_cluster.tasks.handles import (
    JobArgument,
    at_its_cluster,
    handle_of,
    is_missing,
    pool_with,
    publish_seen,
)
from airflow_provider_gpu_cluster.tasks.links import GpuJobLink, tell_page

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.status import JobStatus

_NOTHING = "No GPU job was launched: nothing to cancel"
_EVENTS = {
    JobState.SUCCEEDED: "GPU job had ended",
    JobState.FAILED: "GPU job had ended",
    JobState.LOST: "GPU job had ended",
    JobState.CANCELLED: "GPU job cancelled",
    JobState.UNKNOWN: "GPU job cannot be cancelled now",
}


class CancelGpuJobOperator(BaseOperator):
    """
    Cancel a job that still waits or runs, and do nothing if it has ended.

    Meant to be a teardown, which runs whether the tasks before it succeeded or failed::

        cancel = CancelGpuJobOperator(task_id="cancel", job=train.output).as_teardown()
        [train, done] >> cancel

    Give it no ``setups``: Airflow clears a task's setups together with the task. To clear a failed collect would then
    launch the job again.

    :param job: output of the task that launched the job. If it is missing, no job was launched, and the task
        succeeds. (templated)
    :param wait_s: how long to wait for the job to end, in seconds.
    :param gpu_cluster_conn_id: another connection to the job's cluster; by default the one the job was launched
        with. With a pool, the job is cancelled on whichever of its clusters have it, also if the one that ``job`` names
        is out of reach. (templated)
    """

    template_fields: Sequence[str] = ("job", "gpu_cluster_conn_id")
    operator_extra_links = (GpuJobLink(),)
    ui_color = "#f4e8e4"

    def __init__(
        self,
        *,
        job: JobArgument | None,
        wait_s: float = 15,
        gpu_cluster_conn_id: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        with naming_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        self.job = job
        self.wait_s = wait_s
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        with naming_task(self):
            check_placement(gpu_cluster_conn_id=gpu_cluster_conn_id)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Begin a mapped task; see :meth:`airflow.sdk.BaseOperator.partial`."""
        with naming_arguments(cls, kwargs):
            return super().partial(**kwargs)

    def execute(self, context: Context) -> None:
        """Cancel the job, if there is one to cancel."""
        if is_missing(self.job):
            self.log.info(_NOTHING)
            return
        started = time.monotonic()
        handle = handle_of(self.job)
        publish_seen(context, handle)
        tell_page(context["ti"], self.log, handle.job_id)
        pool = pool_with(handle, self.gpu_cluster_conn_id)
        if pool is not None:
            with pool:
                handle, status = pool.cancel_in_pool(handle, wait_s=self.wait_s)
                self._tell(handle, status, cluster=pool.member(handle.gpu_cluster_conn_id).settings.name, began=started)
            publish_seen(context, handle)
            return
        with at_its_cluster(handle, self.gpu_cluster_conn_id) as (hook, handle, status):
            if status.final:
                return
            if status.attempt or status.state is not JobState.UNKNOWN:
                status = hook.cancel(handle, wait_s=self.wait_s)
            self._tell(handle, status, cluster=hook.settings.name, began=started)

    def _tell(self, handle: JobHandle, status: JobStatus, *, cluster: str, began: float) -> None:
        if status.attempt == 0 and status.state is JobState.UNKNOWN:
            self.log.info(_NOTHING, job_id=handle.job_id)
            return
        self.log.info(
            _EVENTS.get(status.state, "GPU job is being cancelled"),
            job_id=handle.job_id,
            cluster=cluster,
            state=str(status.state),
            message=status.message,
            duration=round(time.monotonic() - began, 2),
        )
