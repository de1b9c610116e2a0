"""CollectGpuJobOperator."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.tasks.handles import JobArgument, handle_of, hook_for

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath


class CollectGpuJobOperator(BaseOperator):
    """
    Bring the outputs of a job home.

    Every file is checked against the checksum that the cluster computed, and then appears under its name by a
    rename: nobody ever sees half a file. Paths and links that leave the job's ``outputs/`` are refused.

    What an earlier try has brought is not fetched again, down to the byte within a large file. The event of each
    :class:`~airflow.sdk.Asset` among the ``outlets`` carries ``job_id``, ``destination``, ``metrics``, and ``files``:
    the SHA-256 of each path.

    It waits for nothing. From a job that has not succeeded it collects what is there, with a warning: so the
    partial outputs of a failed job can be had by a task with ``trigger_rule="all_done"``.

    :param job: output of the task that launched the job, or of the sensor that waited for it. (templated)
    :param destination: where the files go: an absolute path of the worker, a URL such as
        ``s3://connection@bucket/folder``, or an ``ObjectStoragePath``. Paths below ``outputs/`` are kept; those of
        an array go into a folder for each element, named by its index. (templated)
    :param include: pattern or patterns of paths below ``outputs/``, such as ``["*.pth", "metrics.json"]``; by
        default everything. (templated)
    :param exclude: pattern or patterns of what to leave on the cluster. (templated)
    :param gpu_cluster_conn_id: another connection to the job's cluster; by default the one it was launched
        with.
    :return: ``job_id``, ``destination``, ``files`` (``path``, ``size``, ``sha256``) and ``metrics``, the
        content of ``metrics.json`` or None; of an array a list of these, one for each element.
    """

    template_fields: Sequence[str] = ("job", "destination", "include", "exclude", "gpu_cluster_conn_id")
    ui_color = "#e8f4e4"

    def __init__(
        self,
        *,
        job: JobArgument,
        destination: str | os.PathLike[str] | ObjectStoragePath,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        gpu_cluster_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.destination = destination
        self.include = include
        self.exclude = exclude
        self.gpu_cluster_conn_id = gpu_cluster_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Collect, and return what was collected."""
        started = time.monotonic()
        handle = handle_of(self.job)
        with hook_for(handle, self.gpu_cluster_conn_id) as hook:
            status = hook.status(handle)
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
        self._tell_assets(context, result)
        return result

    def _tell_assets(self, context: Context, result: dict[str, Any]) -> None:
        """Put into the event of each asset what it consists of now."""
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = {
                    "job_id": result["job_id"],
                    "destination": result["destination"],
                    "metrics": result["metrics"],
                    "files": {file["path"]: file["sha256"] for file in result["files"]},
                }
