"""A short night of a job on a host; the long one is in a whole Airflow."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness import jobs
from tests.harness.ledger import TRAINING
from tests.harness.night import KILLED_SUPERVISOR, PREEMPTION, Night, environment


def test_a_short_night_loses_no_work(cluster: Cluster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    counts = {PREEMPTION: 1, KILLED_SUPERVISOR: 1}
    command = f'exec "$PYTHON" {TRAINING}'
    handle = jobs.submit(cluster, command, env=environment(ledger), recover=counts, grace_s=10.0).handle
    night = Night(cluster, Path(handle.job_dir), ledger, seed=3, pause_s=0.5)
    night.go(counts)
    status = jobs.wait(cluster, handle.job_id)
    assert status.state is JobState.SUCCEEDED
    assert night.faults() == []
    assert dict(night.reasons()) == counts
