"""StageGpuJobOperator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.identity import forerunners_of, identity_of
from airflow_provider_gpu_cluster.jobs.parameter_checks import connection_ids
from airflow_provider_gpu_cluster.jobs.rendered import is_open
from airflow_provider_gpu_cluster.jobs.request import JobRequest, checked_needs
from airflow_provider_gpu_cluster.pools.placement_options import check_placement
from airflow_provider_gpu_cluster.pools.policy_function import PolicyFunction
from airflow_provider_gpu_cluster.tasks.arguments import naming_arguments, naming_task
from airflow_provider_gpu_cluster.tasks.handles import FilledFields, dag_folder, is_cancelled_by_teardown, publish_seen
from airflow_provider_gpu_cluster.tasks.job_notes import TEARDOWN_XCOM_KEY, push_note
from airflow_provider_gpu_cluster.tasks.links import GpuJobLink, tell_page

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_gpu_cluster.pools.pool import Policy
    from airflow_provider_gpu_cluster.sources.parse import Written


class StageGpuJobOperator(BaseOperator):
    """
    Copy code, data and models to the cluster without launching a job.

    Pass the output to ``SubmitGpuJobOperator(job=...)``. Inputs that the job already has from an earlier try are not
    sent again. After a clear, if a teardown cancels the job, the jobs that were staged before the clear are cancelled.

    :param code: source of the code: a local file or folder relative to the DAG file's folder, ``git+...``,
        ``cluster:...``, or a URL of an object store. A folder's content becomes the job's ``code/``, where it runs.
        (templated)
    :param data: one or more sources for the job's ``data/``. (templated)
    :param models: one or more sources for the job's ``models/``. (templated)
    :param gpu_cluster_conn_id: connection of the cluster; or a pool: a list of connections, or a connection of type
        ``gpu_cluster_pool``. One of its clusters is chosen now, and the job runs there. (templated)
    :param policy: in a pool: how the cluster is chosen; see :class:`SubmitGpuJobOperator`. (templated)
    :param needs: in a pool: what the job will need, by which the cluster is chosen, in the words of
        :class:`SubmitGpuJobOperator`, such as ``{"gpus": 4, "gpu_type": "A100"}``. (templated)
    :param durable: a retry of this task belongs to the same job. False makes every try a separate job.
    :return: the job's handle.
    """

    template_fields = FilledFields("code", "data", "models", "gpu_cluster_conn_id", "policy", "needs")
    operator_extra_links = (GpuJobLink(),)
    ui_color = "#e8f4e4"

    def __init__(
        self,
        *,
        code: Written | None = None,
        data: Written | Sequence[Written] | None = None,
        models: Written | Sequence[Written] | None = None,
        gpu_cluster_conn_id: str | Sequence[str] = GpuClusterHook.default_conn_name,
        policy: Policy | None = None,
        needs: Mapping[str, Any] | str | None = None,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        with naming_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        self.code = code
        self.data = data
        self.models = models
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        self.policy = PolicyFunction.of(policy)
        self.needs = needs
        self.durable = durable
        with naming_task(self):
            check_placement(gpu_cluster_conn_id=gpu_cluster_conn_id, policy=policy)
            if not is_open(needs):
                checked_needs(needs)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Begin a mapped task; see :meth:`airflow.sdk.BaseOperator.partial`."""
        with naming_arguments(cls, kwargs):
            return super().partial(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Stage the inputs, and return the job's handle."""
        started = time.monotonic()
        identity = identity_of(context, durable=self.durable)
        needs = checked_needs(self.needs)
        request = JobRequest(**{**needs, "code": self.code, "data": self.data, "models": self.models})
        ends_with_teardown = is_cancelled_by_teardown(self)
        conn_id = connection_ids(self.gpu_cluster_conn_id) or GpuClusterHook.default_conn_name
        with GpuClusterHook(conn_id, self.policy) as hook:
            if ends_with_teardown and self.durable:
                # Of a run that was cleared while its job ran, the teardown will cancel only the next job.
                forerunners = forerunners_of(context, retries=self.retries or 0)
                if forerunners:
                    hook.cancel_wherever(forerunners, requested_by="Airflow, as a user cleared its task")
            handle = hook.prepare(request, identity, base_dir=dag_folder(self))
            self.log.info(
                "GPU job staged",
                job_id=handle.job_id,
                cluster=hook.member(handle.gpu_cluster_conn_id).settings.name,
                job_dir=handle.job_dir,
                duration=round(time.monotonic() - started, 2),
            )
        publish_seen(context, handle)
        tell_page(context["ti"], self.log, handle.job_id)
        if ends_with_teardown:
            push_note(context["ti"], TEARDOWN_XCOM_KEY, handle.to_json())
        return handle.to_json()
