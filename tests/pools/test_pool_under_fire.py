"""Real clusters of a pool, to which everything happens that can: the job runs once at a time, and to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import paramiko

from tests.harness.leftovers import kill_everything_under
from tests.harness.pool_faults import Fire, PoolUnderFire
from tests.servers.sshd import RealSshd

# `benchmarks/bench_pool_faults.py` does the same two thousand times.
FAULTS = 40


def test_no_fault_runs_a_job_twice_or_loses_it(
    sshd: RealSshd, ssh_connect: Callable[[int], paramiko.SSHClient], tmp_path: Path
) -> None:
    pool = PoolUnderFire(tmp_path, sshd, ssh_connect)
    try:
        faults, seed = 0, 1
        while faults < FAULTS:
            proof = pool.round(seed, fire=Fire(pause_s=0.15, for_s=1.5, kept=0.0, spared=0.0, freezes=False))
            assert not proof.twice
            assert not proof.lost
            faults, seed = faults + sum(proof.faults.values()), seed + 1
    finally:
        pool.close()
        kill_everything_under(tmp_path)
