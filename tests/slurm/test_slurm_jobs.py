"""Jobs on a real Slurm, over the real SSH path: submitted, followed, cancelled."""

from __future__ import annotations

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.job import JobState
from tests.jobs import submit, wait
from tests.slurm.conftest import LoginNode


def test_a_job_runs_on_the_gpus_that_slurm_gives_it(cluster: Cluster, login_node: LoginNode) -> None:
    submission = submit(cluster, 'echo "$CUDA_VISIBLE_DEVICES|$GPU_COUNT|$SECRET"', gpus=2, env={"SECRET": "s3cret"})
    status = wait(cluster, submission.handle.job_id)
    assert status.state is JobState.SUCCEEDED, status
    assert status.log_tail == "0,1|2|s3cret\n"
    assert (status.gpus, status.host, status.exit_code) == ((0, 1), "gpu1", 0)
