"""
What a job brings along when it moves to another cluster, beside scp from the old one and scp to the new one.

Both clusters are behind the same stock sshd, and all files go through this machine. Our times include connecting, every
checksum, and the job's own copy; with ``BENCH_SCALE=0.1`` in the environment a tenth is moved, to see whether it works.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from airflow_provider_gpu_cluster.cluster import Cluster
from benchmarks.measure import Bench, bench
from benchmarks.race import Contender, Prepared, race
from benchmarks.transfer_rivals import Rivals
from tests.harness.jobs import record

RUNS = 5
CHECKPOINTS = 10
CHECKPOINT_BYTES = int(100e6 * float(os.environ.get("BENCH_SCALE", "1")))


def main() -> None:
    with bench(gpus=1) as old:
        with old.cluster() as cluster:
            cluster.stage("job", (), record=record())
        checkpoints = Path(old.settings.root_dir) / "job" / "outputs" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for number in range(CHECKPOINTS):
            (checkpoints / f"step_{number}.pt").write_bytes(os.urandom(CHECKPOINT_BYTES))
        title = f"a job with {CHECKPOINTS * CHECKPOINT_BYTES / 1e9:.1f} GB of checkpoints moves"
        contenders = [
            Contender("GPU cluster, each file checked", lambda place: _ours(old, place), is_ours=True),
            Contender("scp, then scp", lambda place: _scp_twice(Rivals(old), checkpoints, place), target=1.0),
        ]
        race(title, contenders, checkpoints, old.folder, runs=RUNS)


def _ours(old: Bench, place: Path) -> Prepared:
    settings = replace(old.settings, root_dir=str(place / "ml-jobs"), conn_id="new")
    # The program is brought by the first task of all, which is none that is measured.
    with Cluster(settings, old.connect) as cluster:
        cluster.check()
    # Only the first move computes checksums of what the job has.
    (Path(old.settings.root_dir) / "job" / ".job" / "carried-checksums.json").unlink(missing_ok=True)

    def move() -> None:
        with old.cluster() as one, Cluster(settings, old.connect) as other:
            one.carry_to(other, "job", record=record())

    return move, place / "ml-jobs" / "job" / "outputs" / "checkpoints"


def _scp_twice(rivals: Rivals, source: Path, place: Path) -> Prepared:
    between, target = place / "worker", place / "checkpoints"

    def move() -> None:
        rivals.scp_down(source, between)
        rivals.scp_up(between, target)

    return move, target


if __name__ == "__main__":
    main()
