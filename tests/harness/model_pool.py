"""
Clusters of a pool in memory, with every fault between them and a task. They are fakes, which run nothing.

They say what :mod:`.gpu_run.protocol.placement` promises, and answer in microseconds, so that a thousand faults take
seconds. What real clusters do with the same words is tested with real ones.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, PlacementOutrankedError
from airflow_provider_gpu_cluster.gpu_run.protocol import placement as words
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placed, Placement, PlaceReply
from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.placement_record import Mark, PlacementRecord
from airflow_provider_gpu_cluster.pools.pool import Pool

JOB_ID = "job-1"


class WorkerKilled(BaseException):
    """The worker is gone from here on."""


@dataclass
class ModelCluster:
    """One cluster: what it was told, and what it has launched."""

    conn_id: str
    free: bool = True
    told: Placement | None = None
    kind: str = ""
    chosen: dict[str, Placement] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    refuses: Exception | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def is_alive(self) -> bool:
        return bool(self.attempts) and self.attempts[-1]["state"] in ("QUEUED", "RUNNING")

    def placed(self) -> Placed:
        found: Placed = {}
        if self.told is not None:
            found = {"placement": self.told, "kind": self.kind, "chosen": list(self.chosen.values())}
        if self.attempts:
            found["status"] = {"job_id": JOB_ID, "attempt": len(self.attempts), "state": self.attempts[-1]["state"]}
        return found

    def place(self, placement: Placement, kind: str, if_free: bool) -> PlaceReply:
        with self.lock:
            outcome = self._outcome(placement, kind, if_free)
            reply: PlaceReply = {"outcome": outcome, "now": time.time()}
            reply.update(self.placed())  # type: ignore[typeddict-item]
            reply.pop("kind", None)  # type: ignore[typeddict-item]
            return reply

    def _outcome(self, placement: Placement, kind: str, if_free: bool) -> str:
        known = (-1, "") if self.told is None else words_order(self.told)
        asked = words_order(placement)
        if known > asked or (kind == words.CLAIM and known == asked and self.kind != words.CLAIM):
            return words.OUTRANKED
        if kind == words.CLAIM:
            if self.is_alive:
                is_own = known == asked
                self._keep(placement, kind)
                return words.CLAIMED if is_own else words.LAUNCHED
            if if_free and not self.free:
                return words.TAKEN
            self._keep(placement, kind)
            return words.CLAIMED
        if self.is_alive and (kind == words.FENCE or self.attempts[-1]["state"] == "RUNNING") and kind != words.END:
            return words.LAUNCHED
        self._keep(placement, kind)
        if self.is_alive:
            self.attempts[-1]["state"] = "CANCELLED"
        return words.ENDED if self.attempts else words.FENCED

    def _keep(self, placement: Placement, kind: str) -> None:
        self.told, self.kind = placement, kind
        before = self.chosen.get(placement["conn_id"])
        if before is None or words_order(before) < words_order(placement):
            self.chosen[placement["conn_id"]] = placement

    def submit(self, key: str, placement: Placement | None) -> Submission:
        with self.lock:
            if self.attempts and (self.is_alive or self.attempts[-1]["state"] == "SUCCEEDED"):
                return self._submission(created=False)
            if self.refuses is not None:
                raise self.refuses
            if placement is not None and self.told is not None:
                known, asked = words_order(self.told), words_order(placement)
                if known > asked or (known == asked and self.kind != words.CLAIM):
                    raise PlacementOutrankedError(f"{self.conn_id} knows {known}, and this is {asked}")
            self.attempts.append({"state": "RUNNING", "key": key, "placement": placement})
            return self._submission(created=True)

    def _submission(self, *, created: bool) -> Submission:
        handle = JobHandle(JOB_ID, self.conn_id, f"/jobs/{JOB_ID}", "host", None, 1)
        status = JobStatus(JOB_ID, JobState(self.attempts[-1]["state"]), attempt=len(self.attempts))
        return Submission(handle, status, created)


def words_order(placement: Placement) -> tuple[int, str]:
    return placement["epoch"], placement["key"]


class Client:
    """One worker's way to a cluster; each step of it can fail."""

    def __init__(self, cluster: ModelCluster, worker: Worker) -> None:
        self.cluster = cluster
        self.worker = worker
        self.settings = ClusterSettings(conn_id=cluster.conn_id, name=cluster.conn_id)

    def retrying_for(self, seconds: float) -> Client:
        return self

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass

    def place(
        self,
        job_id: str,
        placement: Placement,
        kind: str,
        *,
        spec: Spec | None = None,
        if_free: bool = False,
        by: str = "",
    ) -> PlaceReply:
        reply: PlaceReply = self.worker.call(self.cluster.conn_id, lambda: self.cluster.place(placement, kind, if_free))
        return reply

    def renew(self, jobs: Sequence[Any]) -> Any:
        raise NotImplementedError


class Worker:
    """
    One try of the task, with its own view of the network.

    :param before: called before each step, with the cluster or None for the store; raises what is to fail there.
    :param after: the same, after the step was done and before the worker hears of it.
    """

    def __init__(
        self,
        *,
        before: Callable[[str | None], None] = lambda conn_id: None,
        after: Callable[[str | None], None] = lambda conn_id: None,
    ) -> None:
        self.before = before
        self.after = after
        self.is_dead = False
        self._thread = threading.get_ident()

    def call(self, conn_id: str | None, work: Callable[[], Any]) -> Any:
        try:
            if self.is_dead:
                raise WorkerKilled
            self.before(conn_id)
            result = work()
            self.after(conn_id)
        except WorkerKilled:
            self.is_dead = True
            if threading.get_ident() != self._thread:
                # Its main thread finds that at its next step.
                raise GpuClusterConnectionError("the worker is gone") from None
            raise
        return result

    def offers(self, clusters: dict[str, ModelCluster]) -> Callable[[Pool], list[Offer]]:
        def ask(pool: Pool) -> list[Offer]:
            return [self._offer(member, clusters) for member in pool.members]

        return ask

    def _offer(self, member: Member, clusters: dict[str, ModelCluster]) -> Offer:
        cluster = clusters[member.conn_id]
        try:
            placed = self.call(member.conn_id, cluster.placed)
        except GpuClusterConnectionError as error:
            return Offer(member, fits=False, answered=False, why_not=str(error))
        start_s = 0.0 if cluster.free else 60.0
        known_by = "free now" if cluster.free else "queue"
        return Offer(member, fits=True, starts_in_s=start_s, start_known_by=known_by, placed=placed)

    def launch(self, client: Client, placement: Placement | None) -> Submission:
        key = "" if placement is None else placement["key"]
        submission: Submission = self.call(client.cluster.conn_id, lambda: client.cluster.submit(key, placement))
        return submission


class ModelStore:
    """The store of one worker over what all tries of the task share; a step of it can fail as well."""

    def __init__(self, shared: dict[str, Any], worker: Worker, *, is_precise: bool = True) -> None:
        self.shared = shared
        self.worker = worker
        self.is_precise = is_precise

    @property
    def latest(self) -> PlacementRecord | None:
        return None

    def load(self) -> PlacementRecord | None:
        value = self.worker.call(None, lambda: self.shared.get("record"))
        return None if value is None else PlacementRecord.from_json(value)

    def save(self, record: PlacementRecord) -> None:
        if record.stage == "chosen" and record.conn_id is not None:
            mark = Mark(record.job_id, record.epoch, record.key)
            self.worker.call(None, lambda: self.shared.__setitem__(f"mark {record.conn_id}", mark))
        self.worker.call(None, lambda: self.shared.__setitem__("record", record.to_json()))

    def mark_of(self, conn_id: str) -> Mark | None:
        mark: Mark | None = self.worker.call(None, lambda: self.shared.get(f"mark {conn_id}"))
        return mark


def pause_at_random(chance: random.Random) -> Callable[[str | None], None]:
    """Return a step that lets another worker come between."""

    def pause(conn_id: str | None) -> None:
        if chance.random() < 0.5:
            time.sleep(chance.random() * 0.002)

    return pause


class NthStep:
    """Does something at the n-th step of a worker."""

    def __init__(self, number: int, act: Callable[[str | None], None]) -> None:
        self.number = number
        self.act = act
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, conn_id: str | None) -> None:
        with self._lock:
            self.count += 1
            is_now = self.count == self.number
        if is_now:
            self.act(conn_id)


def die(conn_id: str | None) -> None:
    """Kill the worker that is at a step."""
    raise WorkerKilled
