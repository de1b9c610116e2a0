"""Programs that know nothing of placements, on the same cluster: they start no job that was placed elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
from tests.harness.jobs import submit
from tests.upgrade.sides import Side
from tests.upgrade.test_upgrade import Eventually, Gate, commands_of, programs, wait

# They share one process of the old version.
pytestmark = pytest.mark.xdist_group("upgrade")

HERE: Placement = {"epoch": 1, "key": "a", "conn_id": "gpu01"}


def test_an_old_program_starts_nothing_that_is_elsewhere_or_too_late(
    old: Side,
    connect: Callable[[str], str],
    cluster: Cluster,
    cluster_folder: Path,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    gate = Gate(tmp_path / "gate")
    blocker = old.submit(connect("host"), "blocker", command=gate.wait, gpus=4)
    wait(eventually, old, blocker, "RUNNING")
    (program,) = programs(blocker)
    queued = old.submit(connect("host"), "queued", command="true", gpus=4)
    eventually(lambda: commands_of(cluster_folder, "dispatch"))
    assert all(str(program) in command for command in commands_of(cluster_folder, "dispatch"))
    for job_id in ("late", "fenced"):
        placement: Placement = {**HERE, "start_by": time.time() + 3600}
        submit(cluster, f"touch {tmp_path}/{job_id}", job_id=job_id, gpus=4, placement=placement)
    root = Path(cluster.settings.root_dir)
    for job_id in ("late", "fenced"):
        path = root / ".gpu-run" / "placements" / f"{job_id}.json"
        note: Any = json.loads(path.read_text())
        note["start_by"]["at"] = time.time() - 1
        if job_id == "fenced":
            note["kind"], note["placement"]["epoch"] = "fence", 2
        path.write_text(json.dumps(note))
    # As the one that hands it to Slurm would, or to the site's launcher.
    command = [sys.executable, "-I", "-S", str(program), "supervise-launched"]
    by_old = subprocess.run([*command, str(root / "fenced" / ".job" / "attempts" / "1")], check=False)
    assert by_old.returncode == 75
    assert "moved to another cluster (gpu01)" in (root / "fenced" / "logs" / "error.log").read_text()
    gate.open()
    wait(eventually, old, queued)
    (late,) = eventually(lambda: [one for one in cluster.statuses(["late"]) if one.final])
    assert (late.state.value, late.placement) == ("CANCELLED", "expired")
    assert not list(tmp_path.glob("late")) + list(tmp_path.glob("fenced"))
