"""StageGpuJobOperator, on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.operators.gpu_job import CancelGpuJobOperator, StageGpuJobOperator
from tests.harness import jobs
from tests.harness.task_context import TaskInstance, execute, task_context


@pytest.mark.usefixtures("gpu_cluster_conn")
@pytest.mark.parametrize("has_teardown", [True, False])
def test_after_a_clear_the_job_before_ends_if_a_teardown_would_have_ended_it(
    cluster: Cluster, eventually: Any, has_teardown: bool
) -> None:
    with DAG("lab", schedule=None):
        stage = StageGpuJobOperator(task_id="stage")
        if has_teardown:
            stage >> CancelGpuJobOperator(task_id="cancel", job=stage.output).as_teardown()
    ti = TaskInstance("stage")
    first = execute(stage, task_context(ti))
    assert ti.xcoms.keys() == {"gpu_job", "gpu_job_link", *(["gpu_job_cancel_with_run"] if has_teardown else [])}
    assert ti.xcoms.get("gpu_job_cancel_with_run", first) == ti.xcoms["gpu_job"] == first
    jobs.submit(cluster, "exec sleep 60", job_id=first["job_id"], sources=None)
    eventually(lambda: cluster.statuses([first["job_id"]])[0].state is JobState.RUNNING)
    second = execute(stage, task_context(TaskInstance("stage", try_number=2, max_tries=1)))
    assert second["job_id"] != first["job_id"]
    status = jobs.wait(cluster, first["job_id"]) if has_teardown else cluster.statuses([first["job_id"]])[0]
    assert status.state is (JobState.CANCELLED if has_teardown else JobState.RUNNING)
