"""A night of a job on a real Slurm, whose own partition preempts it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.status import JobState
from tests.harness import jobs
from tests.harness.ledger import TRAINING
from tests.harness.night import KILLED_SUPERVISOR, PREEMPTION, TIME_LIMIT, Night, environment
from tests.servers.slurm import RealSlurm

pytestmark = pytest.mark.xdist_group("slurm")

COUNTS = {PREEMPTION: 6, TIME_LIMIT: 2, KILLED_SUPERVISOR: 2}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_night_loses_no_work(
    cluster: Cluster, slurm: RealSlurm, tmp_path: Path, eventually: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger"
    handle = jobs.submit(
        cluster,
        f'exec "$PYTHON" {TRAINING}',
        env=environment(ledger),
        partition="spot",
        recover={**COUNTS, TIME_LIMIT: "progress"},
        time_limit_s=20.0,
        grace_s=10.0,
    ).handle
    preempt = _preemption(cluster, slurm, handle.job_id, tmp_path, eventually)
    night = Night(cluster, Path(handle.job_dir), ledger, seed=4, preempt=preempt)
    night.go(COUNTS)
    status = jobs.wait(cluster, handle.job_id)
    with capsys.disabled():
        print(f"\n{night.report()}")
    assert status.state is JobState.SUCCEEDED
    assert night.faults() == []
    assert dict(night.reasons()) == COUNTS


def _preemption(cluster: Cluster, slurm: RealSlurm, job_id: str, folder: Path, eventually: Any) -> Callable[[], object]:
    """Return a function that has a job of more weight take all GPUs until the attempt that runs has ended."""
    numbers = itertools.count()

    def preempt() -> None:
        over = folder / f"over-{next(numbers)}"
        attempt = cluster.statuses([job_id])[0].attempt
        options = ("--nodes=2", "--gres=gpu:4", "--partition=gpu", "--output=/dev/null")
        script = f"#!/bin/sh\nuntil [ -e {over} ]; do sleep 0.1; done\n"
        slurm.run("sbatch", *options, standard_input=script, check=True)
        try:
            eventually(lambda: cluster.statuses([job_id])[0].attempt > attempt)
        finally:
            over.touch()

    return preempt
