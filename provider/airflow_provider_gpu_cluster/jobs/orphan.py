"""A job that nothing in Airflow waits for any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_gpu_cluster.jobs.status import JobState


@dataclass(frozen=True)
class OrphanedJob:
    """
    A job that waits or runs on a cluster although its task in Airflow is over.

    :param job_id: its id, which :meth:`.GpuClusterHook.cancel` takes; that of the array, if it is one.
    :param gpu_cluster_conn_id: connection of its cluster.
    :param state: ``QUEUED``, ``RUNNING``, or ``UNKNOWN`` when the cluster cannot tell now.
    :param gpus: how many GPUs it has, or waits for.
    :param why: why nothing waits for it, in words.
    :param dag_id: the DAG of the task that has launched it.
    :param run_id: its run.
    :param task_id: the task.
    :param map_index: its map index; -1 if it is not mapped.
    :param try_number: the try that launched its latest attempt; None if that is not known.
    :param since: when it started, or else when it was submitted; None if that is not known.
    :param unasked: for how long nobody has asked the cluster about it; None if that is not known.
    """

    job_id: str
    gpu_cluster_conn_id: str
    state: JobState
    gpus: int
    why: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int | None
    since: datetime | None
    unasked: timedelta | None

    def __str__(self) -> str:
        """Say all of it in one line."""
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since is not None else ""
        gpus = "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"
        return (
            f"{self.job_id}: {self.state}{since}, {gpus}, of {self.dag_id}.{self.task_id}{index}, run {self.run_id}: "
            f"{self.why}"
        )
