"""
A pool of clusters on a clock of its own: jobs arrive, a cluster is chosen for each, and its scheduler starts them.

The choice is that of the package: each cluster is asked through :class:`.SharedAnswers`, and :func:`.choose` takes one.
What a cluster answers, and which job it starts next, comes from the scheduler of the program on a host
(:class:`.schedule.Board` and :func:`.forecast`). Nothing else is real: no SSH, no processes.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.gpus.forecast import forecast, with_likely_ends
from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import Gpu
from airflow_provider_gpu_cluster.gpu_run.gpus.schedule import Board, QueuedJob, Slot, in_order
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import Appraisal, JobToAppraise
from airflow_provider_gpu_cluster.pools.answers import SharedAnswers
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.pool import SOONEST, Policy, Pool
from benchmarks.pool_trace import PoolJob

POOL = {"small": 8, "middle": 16, "large": 64}


@dataclass(frozen=True)
class _Running:
    """
    What has some GPUs.

    :param ends_s: when it ends.
    :param until_s: when its time limit ends it; infinity if it has none.
    """

    ends_s: float
    until_s: float


class SimulatedCluster:
    """
    A host with some GPUs and a queue.

    :param knows_runs: whether what it answers is about how long jobs really run, and not about their time limits.
    """

    def __init__(self, name: str, gpus: int, *, knows_runs: bool) -> None:
        self.name = name
        self._gpus = [Gpu(f"{name}-{number}", number, "GPU", 0) for number in range(gpus)]
        self._knows_runs = knows_runs
        self._running: dict[str, _Running] = {}
        self._waiting: dict[QueuedJob, PoolJob] = {}
        # How long the last jobs have run, as the ledger knows it.
        self._ended: deque[float] = deque(maxlen=200)

    def appraise(self, wanted: JobToAppraise, job: PoolJob, now: float) -> Appraisal:
        """Answer as the host engine does."""
        if job.gpus > len(self._gpus):
            return {"fits": False, "why_not": f"it has {len(self._gpus)} GPUs"}
        queued = self._queued(job, now)
        waiting = [*self._waiting, queued]
        if self._knows_runs:
            true = {one: one._replace(time_limit_s=mine.run_s) for one, mine in self._waiting.items()}
            queued = queued._replace(time_limit_s=job.run_s)
            waiting = [*true.values(), queued]
        slots = self._slots(now, by_run=self._knows_runs)
        free = sum(slot.free_at <= now for slot in slots)
        appraisal: Appraisal = {"fits": True, "free_gpus": free, "gpus": len(slots), "waiting": len(self._waiting)}
        start = forecast(waiting, slots, now, [queued]).starts.get(queued)
        if start is not None:
            appraisal["starts_in_s"] = start - now
        elif self._ended:
            likely, slots = with_likely_ends(waiting, slots, now, sum(self._ended) / len(self._ended))
            appraisal["likely_in_s"] = forecast(likely, slots, now, likely[-1:]).starts[likely[-1]] - now
        return appraisal

    def submit(self, job: PoolJob, now: float) -> None:
        """Put a job into the queue."""
        self._waiting[self._queued(job, now)] = job

    def end(self, job: PoolJob) -> None:
        """Note that a job has ended."""
        self._ended.append(job.run_s)

    def dispatch(self, now: float) -> list[PoolJob]:
        """Start those whose turn it is, and return them."""
        self._running = {key: running for key, running in self._running.items() if running.ends_s > now}
        board = Board(self._slots(now, by_run=False))
        board.begin(now)
        started = []
        for queued in in_order(self._waiting):
            if not board.has_free:
                break
            decision = board.decide(queued)
            if decision.starts:
                job = self._waiting.pop(queued)
                started.append(job)
                until_s = math.inf if job.limit_s is None else now + job.limit_s
                for gpu in decision.usable:
                    self._running[gpu.key] = _Running(now + job.run_s, until_s)
        return started

    def _queued(self, job: PoolJob, now: float) -> QueuedJob:
        return QueuedJob(str(job.number), 1, now, job.gpus, None, job.limit_s, self.name)

    def _slots(self, now: float, *, by_run: bool) -> list[Slot]:
        return [Slot(gpu, self._free_at(gpu, now, by_run), "") for gpu in self._gpus]

    def _free_at(self, gpu: Gpu, now: float, by_run: bool) -> float:
        running = self._running.get(gpu.key)
        if running is None or running.ends_s <= now:
            return 0.0
        return running.ends_s if by_run else running.until_s


def waits(jobs: Sequence[PoolJob], policy: Policy, *, knows_runs: bool = False) -> list[float]:
    """
    Return how long each job waits for its GPUs, in seconds.

    :param policy: chooses a cluster for each.
    :param knows_runs: whether it is told expected starts that follow from how long jobs really run.
    """
    now = 0.0
    clusters = {name: SimulatedCluster(name, gpus, knows_runs=knows_runs) for name, gpus in POOL.items()}
    by_id = {str(job.number): job for job in jobs}

    def call(conn_id: str, request: dict[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        asked = [clusters[conn_id].appraise(one, by_id[one["job_id"]], now) for one in request["jobs"]]
        future.set_result({"jobs": asked, "now": now})
        return future

    answers = SharedAnswers(call, clock=lambda: now)
    pool = Pool(tuple(Member(name) for name in POOL), policy)
    waited = {}
    # When a job arrives or, on a cluster, ends.
    events: list[tuple[float, int, PoolJob, str]] = [(job.arrives_s, job.number, job, "") for job in jobs]
    heapq.heapify(events)
    while events:
        now, _, arrives, name = heapq.heappop(events)
        if name:
            clusters[name].end(arrives)
        else:
            wanted: JobToAppraise = {
                "job_id": str(arrives.number),
                "spec": {"gpus": arrives.gpus, "time_limit_s": arrives.limit_s},
                "inputs": [],
            }
            (offers,) = answers.offers_of(pool, [wanted])
            name = answers.choose(wanted, offers, policy).offer.conn_id
            clusters[name].submit(arrives, now)
            answers.kept(wanted["job_id"])
        for job in clusters[name].dispatch(now):
            waited[job.number] = now - job.arrives_s
            heapq.heappush(events, (now + job.run_s, -1 - job.number, job, name))
    assert len(waited) == len(jobs)
    return [waited[job.number] for job in jobs]


def at_random(seed: int) -> Policy:
    """Return a policy that takes any of those that fit."""
    chance = random.Random(seed)
    return lambda offers: chance.choice(offers)


def round_robin() -> Policy:
    """Return a policy that takes one after the other."""
    turn = 0

    def choose(offers: Sequence[Offer]) -> Offer:
        nonlocal turn
        turn += 1
        return offers[turn % len(offers)]

    return choose


def always_first(offers: Sequence[Offer]) -> Offer:
    """Take the first that fits."""
    return offers[0]


RIVALS: dict[str, tuple[Callable[[], Policy], bool]] = {
    "soonest": (lambda: SOONEST, False),
    "oracle": (lambda: SOONEST, True),
    "random": (lambda: at_random(1), False),
    "round robin": (round_robin, False),
    "always the first": (lambda: always_first, False),
}
"""Makes each policy, and whether it knows how long jobs really run."""
