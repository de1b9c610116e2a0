"""Every fault between a task, its store and the clusters of its pool: the job is launched once, and is never lost."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import structlog

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    NoSpaceError,
    PlacementUnknownError,
    SourceError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.pools import placing as placing_module
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.placing import JobToPlace, Placing
from airflow_provider_gpu_cluster.pools.pool import Pool
from tests.harness.model_pool import (
    JOB_ID,
    Client,
    ModelCluster,
    ModelStore,
    NthStep,
    Worker,
    WorkerKilled,
    die,
    pause_at_random,
)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing_module, "_SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(placing_module, "_LONGEST_PAUSE_S", 0.001)


class Lab:
    """A pool of clusters in memory, and what the tries of one task share."""

    def __init__(self, *names: str) -> None:
        self.clusters = {name: ModelCluster(name) for name in names}
        self.pool = Pool(tuple(Member(name) for name in names), policy="in_order")
        self.shared: dict[str, Any] = {}

    def placing(self, worker: Worker, key: str = "try-1", *, is_precise: bool = True) -> Placing[Client]:
        return Placing(
            self.pool,
            JobToPlace(JOB_ID, key, {"gpus": 1}),
            store=ModelStore(self.shared, worker, is_precise=is_precise),
            members=Members(lambda conn_id: Client(self.clusters[conn_id], worker)),
            offers=worker.offers(self.clusters),
            launch=worker.launch,
            log=structlog.get_logger(),
        )

    def begin(self, worker: Worker | None = None, key: str = "try-1", **how: Any) -> str:
        return self.placing(worker or Worker(), key, **how).begin()[0].handle.gpu_cluster_conn_id

    def launches(self) -> list[str]:
        return [name for name, cluster in self.clusters.items() for _ in cluster.attempts]


def _out_of_reach(*names: str) -> Callable[[str | None], None]:
    def fail(conn_id: str | None) -> None:
        if conn_id in names:
            raise GpuClusterConnectionError(f"{conn_id} is down")

    return fail


def test_the_first_that_fits_gets_the_job_and_the_next_try_finds_it() -> None:
    lab = Lab("a", "b", "c")
    assert lab.begin() == "a"
    assert lab.begin(key="try-2") == "a"
    assert lab.launches() == ["a"]


def test_a_cluster_that_is_down_at_the_choice_is_left_out() -> None:
    lab = Lab("a", "b")
    assert lab.begin(Worker(before=_out_of_reach("a"))) == "b"
    assert lab.begin(key="try-2") == "b"
    assert lab.launches() == ["b"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 30))
def test_a_worker_that_is_killed_at_any_step_leaves_a_job_that_the_next_try_launches_once(step: int, when: str) -> None:
    lab = Lab("a", "b", "c")
    worker = Worker(**{when: NthStep(step, die)})
    try:
        lab.begin(worker)
    except (WorkerKilled, GpuClusterError):
        assert worker.is_dead
    # The next try finds the first cluster out of reach, and launches nothing if that may have the job.
    may_have_been_sent = lab.shared.get("record", {}).get("conn_id") == "a"
    try:
        found = lab.begin(Worker(before=_out_of_reach("a")), "try-2")
    except PlacementUnknownError:
        assert may_have_been_sent or "mark a" in lab.shared
        assert len(lab.launches()) <= 1
        found = lab.begin(key="try-3")
    assert lab.launches() == [found]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 16))
def test_a_cluster_that_goes_down_at_any_step_and_comes_back(step: int, when: str) -> None:
    lab = Lab("a", "b")
    down: set[str] = set()
    goes_down = NthStep(step, lambda conn_id: down.add("a"))

    def fail(moment: str, conn_id: str | None) -> None:
        if moment == when:
            goes_down(conn_id)
        if conn_id in down:
            raise GpuClusterConnectionError(f"{conn_id} is down")

    try:
        found = lab.begin(Worker(before=partial(fail, "before"), after=partial(fail, "after")))
    except PlacementUnknownError:
        assert len(lab.launches()) <= 1
        found = lab.begin(key="try-2")
    assert lab.launches() == [found]
    assert lab.begin(key="try-3") == found


def test_a_cluster_that_refuses_the_launch_gives_way_to_the_next() -> None:
    lab = Lab("a", "b")
    lab.clusters["a"].refuses = NoSpaceError("disk full")
    assert lab.begin() == "b"
    assert lab.begin(key="try-2") == "b"
    assert lab.launches() == ["b"]
    assert lab.clusters["a"].kind != "claim"


def test_what_one_cluster_cannot_fetch_another_may() -> None:
    lab = Lab("a", "b")
    lab.clusters["a"].refuses = error = SourceError("git could not fetch it")
    error.code = protocol.SOURCE_ERROR
    assert lab.begin() == "b"
    assert lab.launches() == ["b"]


def test_a_fault_of_the_job_is_told_at_once_and_leaves_nothing_claimed() -> None:
    lab = Lab("a", "b")
    lab.clusters["a"].refuses = InvalidJobError("no such script")
    with pytest.raises(InvalidJobError, match="no such script"):
        lab.begin()
    assert lab.launches() == []
    assert [cluster.kind for cluster in lab.clusters.values()] == ["withdraw", "fence"]
    assert lab.shared["record"]["stage"] == "ended"


def test_a_refusal_of_which_it_is_not_known_whether_it_holds_lets_no_other_launch() -> None:
    lab = Lab("a", "b")
    lab.clusters["a"].refuses = NoSpaceError("disk full")
    # Its refusal comes, and then nothing more.
    words = iter(["appraise", "claim", "submit"])

    def silent_after_all(conn_id: str | None) -> None:
        if conn_id == "a" and next(words, None) is None:
            raise GpuClusterConnectionError("a is down")

    with pytest.raises(PlacementUnknownError, match="a has refused job"):
        lab.begin(Worker(before=silent_after_all))
    assert lab.launches() == []
    with pytest.raises(PlacementUnknownError, match="may be on a"):
        lab.begin(Worker(before=_out_of_reach("a")), "try-2")
    lab.clusters["a"].refuses = None
    assert lab.begin(key="try-3") == "a"


def test_if_all_refuse_the_error_is_theirs() -> None:
    lab = Lab("a", "b")
    for cluster in lab.clusters.values():
        cluster.refuses = NoSpaceError("disk full")
    with pytest.raises(NoSpaceError, match=r"has taken this job:\n  a: disk full\n  b: disk full$"):
        lab.begin()
    assert lab.launches() == []


def test_if_those_that_fit_fall_silent_it_is_an_outage() -> None:
    lab = Lab("a", "b")

    def silent_at_a_claim(conn_id: str | None) -> None:
        if conn_id is not None and next(words[conn_id], "") == "claim":
            raise GpuClusterConnectionError("it has not answered within 30 s")

    words = {conn_id: itertools.cycle(["appraise", "claim"]) for conn_id in lab.clusters}
    with pytest.raises(GpuClusterConnectionError, match=r"can run this job now:\n  a: it has not answered") as told:
        lab.begin(Worker(before=silent_at_a_claim))
    assert not isinstance(told.value, PlacementUnknownError)


def test_an_attempt_that_is_being_ended_is_not_the_job() -> None:
    lab = Lab("a", "b")
    assert lab.begin(Worker(before=_out_of_reach("a"))) == "b"
    # It ran there before a failover, and takes long to end.
    lab.clusters["a"].attempts.append({"state": "RUNNING"})
    lab.clusters["a"].told = {"epoch": 9, "key": "try-1", "conn_id": "b"}
    lab.clusters["a"].kind = "end"
    assert lab.begin(key="try-2") == "b"
    assert lab.clusters["b"].attempts[-1]["state"] == "RUNNING"


def test_a_job_that_was_launched_without_a_pool_is_joined() -> None:
    lab = Lab("a", "b")
    lab.clusters["b"].attempts.append({"state": "RUNNING"})
    assert lab.begin(is_precise=False) == "b"
    assert lab.launches() == ["b"]


def test_without_a_memory_more_than_half_must_answer() -> None:
    lab = Lab("a", "b", "c")
    assert lab.begin(Worker(before=_out_of_reach("a")), is_precise=False) == "b"
    # The next one remembers nothing either, and c tells of b.
    lab.shared.clear()
    with pytest.raises(PlacementUnknownError, match="may be on b"):
        lab.begin(Worker(before=_out_of_reach("b")), "try-2", is_precise=False)
    with pytest.raises(PlacementUnknownError, match=r"too few .* of 2, more .* not: a \(a is down\)\. Noth"):
        Lab("a", "b").begin(Worker(before=_out_of_reach("a")), is_precise=False)
    assert lab.launches() == ["b"]


def _race(seed: int) -> None:
    """Let up to three workers choose at once, with clusters that come and go, and workers that die."""
    chance = random.Random(seed)
    lab = Lab("a", "b", "c")
    down: set[str] = set()
    is_precise = chance.random() < 0.7
    # An executor may deliver one try twice, and two triggerers may run one trigger.
    is_one_try = chance.random() < 0.4
    running: list[threading.Thread] = []

    def work(number: int) -> None:
        own = random.Random(seed * 10 + number)
        unreached = {name for name in lab.clusters if own.random() < 0.15}
        die_at = own.randrange(1, 40) if own.random() < 0.4 else 0
        dies = NthStep(die_at, die)
        pause = pause_at_random(own)

        def step(conn_id: str | None) -> None:
            pause(conn_id)
            dies(conn_id)
            if conn_id is not None and (conn_id in down or conn_id in unreached):
                raise GpuClusterConnectionError(f"{conn_id} is down")

        with contextlib.suppress(WorkerKilled, GpuClusterError):
            key = "try-1" if is_one_try else f"try-{number}"
            lab.begin(Worker(before=step, after=step), key, is_precise=is_precise)

    for number in range(chance.randrange(1, 4)):
        running.append(threading.Thread(target=work, args=(number,)))
    for thread in running:
        thread.start()
    for name in lab.clusters:
        if chance.random() < 0.3:
            down.add(name)
    for thread in running:
        thread.join()
    assert len(lab.launches()) <= 1, (seed, lab.launches(), lab.shared)
    down.clear()
    found = lab.begin(key="try-9", is_precise=is_precise)
    assert lab.launches() == [found], (seed, lab.launches(), lab.shared)


def test_several_workers_choose_at_once() -> None:
    for seed in range(30):
        _race(seed)


@pytest.mark.long
def test_several_workers_choose_at_once_very_often() -> None:
    for seed in range(100, 5_000):
        _race(seed)
