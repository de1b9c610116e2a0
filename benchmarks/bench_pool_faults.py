"""
Faults between the tries of a task and the clusters of its pool, at random: nothing runs twice at a time or is lost.

Clusters go out of reach, connections are cut in the middle or freeze, workers are killed at any moment and at writes to
their store, several choose at once, programs on the clusters are killed, and clocks are ten minutes off. After each
job, the records of all clusters say what has run when. ``--seed`` repeats the jobs of a run, though not the moments.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import tempfile
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.conftest import connections_to
from tests.harness.leftovers import kill_everything_under
from tests.harness.pool_faults import PoolUnderFire, Proof
from tests.servers.sshd import RealSshd

FAULTS = 2000
POOLS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=FAULTS, help="how many at least")
    parser.add_argument("--pools", type=int, default=POOLS, help="how many pools have theirs at the same time")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    proofs: Queue[tuple[int, Proof]] = context.Queue()
    is_over = context.Event()
    pools = [
        context.Process(target=_fire, args=(asked.seed + number, asked.pools, proofs, is_over))
        for number in range(asked.pools)
    ]
    began = time.monotonic()
    print(f"seed {asked.seed}")
    for pool in pools:
        pool.start()
    whole, jobs = Proof(), 0
    while sum(whole.faults.values()) < asked.faults and any(pool.is_alive() for pool in pools):
        seed, proof = proofs.get()
        jobs += 1
        whole.add(proof)
        for kind, stories in (("twice", proof.twice), ("lost", proof.lost)):
            for story in stories:
                print(f"{kind}, seed {seed}: {story}", flush=True)
        if jobs % 10 == 0:
            _tell(whole, jobs, time.monotonic() - began)
    is_over.set()
    while any(pool.is_alive() for pool in pools):
        # What they still put into it would keep them.
        while not proofs.empty():
            seed, proof = proofs.get()
            jobs += 1
            whole.add(proof)
        time.sleep(0.2)
    _tell(whole, jobs, time.monotonic() - began)
    for fault, times in whole.faults.most_common():
        print(f"  {times:6} {fault}")
    if whole.twice or whole.lost:
        raise SystemExit(1)


def _tell(whole: Proof, jobs: int, seconds: float) -> None:
    faults = sum(whole.faults.values())
    print(
        f"{faults} faults, {jobs} jobs, {seconds:.0f} s, {faults / seconds:.1f} faults/s: "
        f"{len(whole.twice)} ran twice at one time, {len(whole.lost)} lost; "
        f"{whole.again} ended unseen behind a partition and ran again after the failover",
        flush=True,
    )


def _fire(first: int, step: int, proofs: Queue[tuple[int, Proof]], is_over: Event) -> None:
    """Let one pool have faults, job by job."""
    with tempfile.TemporaryDirectory(prefix="gpu-cluster-faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for part in ("sshd", "pool"):
            (folder / part).mkdir()
        sshd = RealSshd(folder / "sshd")
        sshd.start()
        try:
            with connections_to(sshd) as connect:
                pool = PoolUnderFire(folder / "pool", sshd, connect)
                for seed in itertools.count(first, step):
                    if is_over.is_set():
                        break
                    proofs.put((seed, pool.round(seed)))
                pool.close()
        finally:
            kill_everything_under(folder / "pool")
            sshd.stop()


if __name__ == "__main__":
    main()
