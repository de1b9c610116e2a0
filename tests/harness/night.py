"""A night of a long job: what happens to it while nobody looks, in a random order that a seed repeats."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_provider_gpu_cluster.cluster import Cluster
from tests.harness.ledger import Ledger
from tests.harness.patience import PATIENCE_S

PREEMPTION = "preempted"
TIME_LIMIT = "time_limit"
KILLED_SUPERVISOR = "lost"
SAVE_EVERY = 5
_MOST_IN_A_ROW = 4


class Night:
    """
    One job that runs :mod:`tests.harness.training` and ends only when it is told that it is enough.

    :param job_dir: of the job; it runs on this machine.
    :param ledger: file in which it notes what it does.
    :param pause_s: the longest time from the beginning of an attempt to the blow that ends it.
    :param preempt: has the running job be preempted; by default a rehearsal of it.
    """

    def __init__(
        self,
        cluster: Cluster,
        job_dir: Path,
        ledger: Path,
        *,
        seed: int,
        pause_s: float = 2.0,
        preempt: Callable[[], object] | None = None,
    ) -> None:
        self.seed = seed
        self._cluster = cluster
        self._job_dir = job_dir
        self._ledger = ledger
        self._random = random.Random(seed)
        self._pause_s = pause_s
        rehearsal = {"kind": PREEMPTION, "requested_by": "the night"}
        self._blows: dict[str, Callable[[], object]] = {
            PREEMPTION: preempt or (lambda: cluster.interrupt_job(job_dir.name, **rehearsal)),
            TIME_LIMIT: lambda: None,  # comes by itself
            KILLED_SUPERVISOR: self._kill_supervisor,
        }
        self._attempt = 0
        self._began = time.monotonic()

    def go(self, counts: Mapping[str, int], meanwhile: Callable[[int], object] = lambda _: None) -> None:
        """
        Let the job suffer so much, each blow at a random moment of another attempt, and then come to its end.

        :param counts: how often each of the blows comes.
        :param meanwhile: is called before each blow, with the number of those before it.
        """
        for number, blow in enumerate(self._in_random_order(counts)):
            meanwhile(number)
            self._attempt = self._next_attempt()
            time.sleep(self._random.uniform(0.0, self._pause_s))
            self._blows[blow]()
        self._next_attempt()
        Path(f"{self._ledger}.enough").touch()

    def _in_random_order(self, counts: Mapping[str, int]) -> list[str]:
        blows = [blow for blow, count in counts.items() for _ in range(count)]
        while True:
            self._random.shuffle(blows)
            # With each end for the same reason the pause before the next attempt doubles.
            if max(len(list(same)) for _, same in itertools.groupby(blows)) <= _MOST_IN_A_ROW:
                return blows

    def report(self) -> str:
        """Return what came of it, in one line."""
        ledger = Ledger.read(self._ledger)
        ends = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons().items()))
        return (
            f"seed {self.seed}: {len(ledger.attempts)} attempts in {time.monotonic() - self._began:.0f} s ({ends}); "
            f"{ledger.steps_run} steps, {ledger.steps_repeated} of them repeated; "
            f"{len(ledger.double_launches())} double launches"
        )

    def reasons(self) -> Counter[str]:
        """Return how often attempts ended badly for each reason, as their exit records have it."""
        records = self._job_dir.glob(".job/attempts/*/exit.json")
        reasons = (json.loads(record.read_text())["reason"] for record in records)
        return Counter(reason for reason in reasons if reason is not None)

    def faults(self) -> list[str]:
        """Return what must not be."""
        return Ledger.read(self._ledger).faults(save_every=SAVE_EVERY)

    def _next_attempt(self) -> int:
        """Wait until the job works again, and return the number of its attempt."""
        deadline = time.monotonic() + PATIENCE_S * 4
        while True:
            for _ in range(20):
                attempts = Ledger.read(self._ledger).attempts
                if attempts and attempts[-1] > self._attempt:
                    return attempts[-1]
                time.sleep(0.1)
            (status,) = self._cluster.statuses([self._job_dir.name])
            assert not status.final, f"it ended in attempt {status.attempt}: {status.message}; {self.report()}"
            assert time.monotonic() < deadline, f"no attempt after {self._attempt}: {status}"

    def _kill_supervisor(self) -> None:
        claim = json.loads((self._job_dir / f".job/attempts/{self._attempt}/claim.json").read_text())
        os.kill(claim["pid"], signal.SIGKILL)


def environment(ledger: Path) -> dict[str, str]:
    """Return the environment variables with which the job works through a night."""
    return {"LEDGER": str(ledger), "STEP_S": "0.1", "SAVE_EVERY": str(SAVE_EVERY)}
