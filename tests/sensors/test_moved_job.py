"""A sensor goes on where its job is, when a job of a pool was moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk import PokeReturnValue

from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.watch import job_or_array
from tests.harness.task_context import StateStore, TaskInstance, task_context

HANDLE = JobHandle("job-1", "a", "/jobs/job-1", "host", None, 1)


class FakeWatch:
    """Says what a test says of the job on one cluster. It is a fake."""

    def __init__(self, status: JobStatus, memory: dict[str, Any]) -> None:
        self.status = status
        self.memory = {**memory, "shown": status.job_id}

    def look(self) -> JobStatus:
        return self.status

    def settle(self, pause: Any) -> None:
        pass

    def end(self, status: JobStatus) -> None:
        pass


def test_it_follows_from_poke_to_poke(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B"):
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name}", f'{{"conn_type": "gpu_cluster", "host": "h", "extra": {{"root_dir": "/{name}"}}}}'
        )
    withdrawn = JobStatus("job-1", JobState.CANCELLED, attempt=1, placement="withdrawn")
    said = {"a": withdrawn, "b": JobStatus("job-1", JobState.SUCCEEDED, attempt=1)}
    asked: list[Any] = []

    def watch_of(cluster: Any, handle: JobHandle, *, memory: dict[str, Any], **how: Any) -> FakeWatch:
        asked.append((cluster.settings.conn_id, handle.gpu_cluster_conn_id, "shown" in memory))
        return FakeWatch(said[handle.gpu_cluster_conn_id], memory)

    monkeypatch.setattr(job_or_array, "watch_of", watch_of)
    store, ti = StateStore(), TaskInstance("wait")

    def poke() -> Any:
        # Each poke is a process of its own.
        sensor = GpuJobSensor(task_id="wait", job=HANDLE.to_json(), gpu_cluster_conn_id="a", get_logs=False)
        return sensor.poke(task_context(ti, store=store))

    assert poke() is False  # nobody has said yet where it goes
    said["a"] = replace(withdrawn, moved_to="b")
    assert poke() is False
    result = poke()
    assert isinstance(result, PokeReturnValue)
    assert result.xcom_value is not None
    assert (result.xcom_value["gpu_cluster_conn_id"], result.xcom_value["job_dir"]) == ("b", "/B/job-1")
    # What it has shown of the output is of each cluster.
    assert asked == [("a", "a", False), ("a", "a", True), ("b", "b", False)]
    assert ti.xcoms["return_value"]["gpu_cluster_conn_id"] == "b"
