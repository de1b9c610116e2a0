"""A night: a task without retries, and everything that ends attempts and triggers while nobody looks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.logs.relay import visible
from tests.harness.night import KILLED_SUPERVISOR, PREEMPTION, TIME_LIMIT, Night
from tests.whole_airflow.conftest import Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]

COUNTS = {PREEMPTION: 20, TIME_LIMIT: 5, KILLED_SUPERVISOR: 3}
KILLED_TRIGGERERS = 3


class Triggerer:
    """Airflow's triggerer, which is killed a few times, and is back two blows later."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._lab = lab
        blows = sum(COUNTS.values())
        self._killed_at = random.Random(seed).sample(range(1, blows - 3, 4), KILLED_TRIGGERERS)
        self.kills = 0

    def __call__(self, number: int) -> None:
        """Kill it, or start it again, before a blow."""
        if number in self._killed_at:
            self._lab.airflow.kill_component("triggerer")
            self.kills += 1
        if number - 2 in self._killed_at:
            self._lab.airflow.start_component("triggerer")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_night_loses_no_work(lab: Lab, lab_cluster: Cluster, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = lab.start("night")
    handle = lab.handle("night", run_id)
    job_dir = Path(handle["job_dir"])
    night = Night(lab_cluster, job_dir, lab.folder / f"runs-{run_id}", seed=seed)
    triggerer = Triggerer(lab, seed)
    night.go(COUNTS, triggerer)
    assert lab.end("night", run_id) == "success"
    with capsys.disabled():
        print(f"\n{night.report()}; {triggerer.kills} killed triggerers")
    assert night.faults() == []
    assert dict(night.reasons()) == COUNTS
    assert triggerer.kills == KILLED_TRIGGERERS
    (task,) = lab.airflow.tasks("night", run_id)
    assert (task["state"], task["try_number"]) == ("success", 1)
    shown = lab.output("night", run_id, "train")
    assert shown == [visible(line) for line in (job_dir / "logs/training.log").read_bytes().splitlines()]
