"""CollectGpuJobOperator."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.placement_options import check_placement
from airflow_provider_gpu_cluster.tasks.arguments import naming_arguments, naming_task
from airflow_provider_gpu_cluster.tasks.handles import JobArgument, at_its_cluster, handle_of, publish_seen
from airflow_provider_gpu_cluster.tasks.links import GpuJobLink, tell_page

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath
    from airflow.sdk.definitions.mappedoperator import OperatorPartial


class CollectGpuJobOperator(BaseOperator):
    """
    Download the outputs of a job.

    Each file is checked against the checksum that the cluster computed, and then renamed to its final name, so nobody
    ever sees half a file. Paths and links that lead out of the job's ``outputs/`` are refused.

    A retry does not download again what an earlier try has downloaded; it resumes a large file at the next byte. The
    event of each :class:`~airflow.sdk.Asset` among the ``outlets`` carries ``job_id``, ``destination``, ``metrics``,
    and ``files``: the SHA-256 of each path.

    Within one DAG run, two jobs never write the same file of a destination: the second one is refused. In a mapped
    task, put ``{{ ti.map_index }}`` into the destination. What another run has left there is replaced.

    The task does not wait for the job. If the job has not succeeded, the task logs a warning and collects the outputs
    that exist. As a teardown, ``collect.as_teardown()``, it can thus collect the partial outputs of a failed job, and
    the run still fails.

    :param job: output of the task that launched the job, or of the sensor that waited for it. (templated)
    :param destination: where the files go: an absolute path on the worker, a URL such as
        ``s3://connection@bucket/folder``, or an ``ObjectStoragePath``. Files keep their paths below ``outputs/``; the
        files of an array go into one folder per element, named after its index. (templated)
    :param include: one or more patterns of paths below ``outputs/``, such as ``["*.pth", "metrics.json"]``; by
        default everything. (templated)
    :param exclude: one or more patterns of paths to leave on the cluster. (templated)
    :param gpu_cluster_conn_id: another connection to the job's cluster; by default the one the job was launched
        with. Of a pool, it is the cluster where the job is. (templated)
    :return: ``job_id``, ``destination``, ``files`` (``path``, ``size``, ``sha256``) and ``metrics``, the
        content of ``metrics.json`` or None; for an array, a list with one item for each element. If the job has gone on
        by itself, also ``attempts`` and ``recovered``.
    """

    template_fields: Sequence[str] = ("job", "destination", "include", "exclude", "gpu_cluster_conn_id")
    operator_extra_links = (GpuJobLink(),)
    ui_color = "#e8f4e4"

    def __init__(
        self,
        *,
        job: JobArgument,
        destination: str | os.PathLike[str] | ObjectStoragePath,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        gpu_cluster_conn_id: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        with naming_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        self.job = job
        self.destination = destination
        self.include = include
        self.exclude = exclude
        self.gpu_cluster_conn_id = gpu_cluster_conn_id
        with naming_task(self):
            check_placement(gpu_cluster_conn_id=gpu_cluster_conn_id)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Begin a mapped task; see :meth:`airflow.sdk.BaseOperator.partial`."""
        with naming_arguments(cls, kwargs):
            return super().partial(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Collect the outputs, and return what was collected."""
        started = time.monotonic()
        handle = handle_of(self.job)
        publish_seen(context, handle)
        tell_page(context["ti"], self.log, handle.job_id)
        with at_its_cluster(handle, self.gpu_cluster_conn_id) as (hook, handle, status):
            if status.state is not JobState.SUCCEEDED:
                self.log.warning(
                    "GPU job has not succeeded; collecting what is there",
                    job_id=handle.job_id,
                    state=str(status.state),
                )
            result = hook.collect(handle, self.destination, include=self.include, exclude=self.exclude)
            self.log.info(
                "GPU job collected",
                job_id=handle.job_id,
                cluster=hook.settings.name,
                destination=result["destination"],
                files=len(result["files"]),
                bytes=sum(file["size"] for file in result["files"]),
                duration=round(time.monotonic() - started, 2),
            )
        result |= status.history()
        self._tell_assets(context, result)
        return result

    def _tell_assets(self, context: Context, result: dict[str, Any]) -> None:
        """Put into the event of each asset what it now consists of."""
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = {
                    "job_id": result["job_id"],
                    "destination": result["destination"],
                    "metrics": result["metrics"],
                    "files": {file["path"]: file["sha256"] for file in result["files"]},
                }
