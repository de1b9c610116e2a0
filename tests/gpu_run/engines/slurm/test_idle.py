"""Jobs that leave their GPUs idle on a real Slurm, on one node and on two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_run.engines.slurm.in_process import SlurmRoot
from tests.harness.leftovers import kill_everything_under
from tests.servers.slurm import RealSlurm

pytestmark = [pytest.mark.xdist_group("slurm-faults"), pytest.mark.long]

SAVES = "trap 'touch \"$OUTPUT_DIR/saved-$NODE_RANK\"; exit 85' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def root(slurm: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRoot]:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    # The first GPU of each node computes.
    told = tmp_path / "gpus.json"
    told.write_text(json.dumps({"gpus": [{"percent": percent, "memory_bytes": 1 << 30} for percent in (80, 0.4)]}))
    monkeypatch.setenv("GPU_RUN_FAKE_NVML", str(told))
    yield SlurmRoot(tmp_path)
    slurm.end_jobs()
    kill_everything_under(tmp_path)


def test_a_job_is_idle_only_if_it_is_so_on_all_its_nodes(root: SlurmRoot, eventually: Callable[..., Any]) -> None:
    spec: dict[str, Any] = {"utilization_window_s": 4.0, "on_idle": "cancel", "recover": {"checkpointed": 3, "lost": 3}}
    busy = root.submit(SAVES, nodes=2, gpus=1, **spec)
    eventually(lambda: root.status(busy)["state"] == "RUNNING", timeout_s=60)
    idle = root.submit(SAVES, nodes=2, gpus=1, **spec)
    alone = root.submit(SAVES, gpus=1, **spec)
    for job_id, nodes in ((idle, 2), (alone, 1)):
        end = eventually(lambda job_id=job_id: _ended(root, job_id), timeout_s=90)
        assert (end["state"], end["reason"], end["attempt"]) == ("FAILED", "idle", 1), end
        assert end["message"].startswith("its GPU use was 0.4 % in the mean for ")
        saved = {path.name for path in Path(root.job(job_id).at("outputs")).glob("saved-*")}
        assert saved == {f"saved-{rank}" for rank in range(nodes)}
    status = root.status(busy)
    assert (status["state"], status.get("idle")) == ("RUNNING", None)
    assert status["usage"]["gpu_mean_percent"] == 80


def _ended(root: SlurmRoot, job_id: str) -> dict[str, Any] | None:
    status = root.status(job_id)
    return status if status["state"] in ("FAILED", "LOST", "SUCCEEDED", "CANCELLED") else None
