"""When a job that waits goes to another cluster; and that it is then there once, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_gpu_cluster.exceptions import CannotCarryError, GpuClusterConnectionError, NoSpaceError
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import FREE_NOW, QUEUE
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools import placing as placing_module
from airflow_provider_gpu_cluster.pools import placing_round, side_by_side
from airflow_provider_gpu_cluster.pools.keeping import WorkerNeeded
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.moving import APART_S, MOST_MOVES, Here, Moves, better_place, how_it_waits
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.placing import JobToPlace, Placing
from airflow_provider_gpu_cluster.pools.pool import Policy, Pool
from tests.harness.model_pool import JOB_ID, Client, ModelCluster, ModelStore, NthStep, Worker, WorkerKilled, die

HOUR, GAIN = 3600.0, 600.0


def offer(name: str, starts_in_s: float | None = 0.0, **facts: Any) -> Offer:
    known_by = FREE_NOW if starts_in_s == 0 else QUEUE if starts_in_s else None
    plain = Offer(
        Member(name), fits=True, starts_in_s=starts_in_s, start_known_by=known_by, missing_bytes=0, send_s=0.0
    )
    return replace(plain, **facts)


def here(starts_in_s: float | None = 2 * HOUR, *, waited_s: float = HOUR, is_next: bool = False) -> Here:
    return Here("a", starts_in_s, waited_s, is_next)


def goes_to(how: Here, *offers: Offer, policy: Policy = "soonest", **more: Any) -> str | None:
    better = better_place(how, [offer("a", how.starts_in_s), *offers], policy=policy, move_gain_s=GAIN, **more)
    return None if better is None else better.offer.conn_id


# -- the decision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "offers", "target"),
    [
        (here(), [offer("b")], "b"),
        (here(), [offer("b", HOUR)], "b"),
        (here(), [offer("b", HOUR + 1)], None),  # not in half the time
        (here(900), [offer("b", 301)], None),  # not ten minutes sooner
        (here(900), [offer("b", 300)], "b"),
        (here(), [offer("b", 900), offer("c", 60)], "c"),
        (here(), [offer("b", None)], None),  # it does not say
        (here(), [offer("b", answered=False, fits=False)], None),
        (here(), [offer("b", fits=False)], None),
        (here(None), [offer("b")], "b"),
        (here(None), [offer("b", 60)], None),
        (here(None, waited_s=GAIN - 1), [offer("b")], None),
        (here(None, is_next=True), [offer("b")], None),  # it may be about to start
        (here(700), [offer("b", missing_bytes=10**10, send_s=500.0)], None),  # its inputs take longer
        (here(700), [offer("b", is_environment_built=False)], None),
    ],
)
def test_a_job_goes_where_it_starts_much_sooner(how: Here, offers: list[Offer], target: str | None) -> None:
    assert goes_to(how, *offers) == target


def test_what_it_has_saved_counts() -> None:
    assert goes_to(here(1200), offer("b"), carried_bytes=int(20e6 * 599)) == "b"
    assert goes_to(here(1200), offer("b"), carried_bytes=int(20e6 * 601)) is None
    fast = offer("b", missing_bytes=10**9, send_s=1.0)
    assert goes_to(here(1200), fast, carried_bytes=int(20e6 * 601)) == "b"


def skips(offers: Sequence[Offer]) -> Offer:
    raise AirflowSkipException("too expensive")


@pytest.mark.parametrize(
    ("policy", "prices", "target"),
    [
        ("cheapest", (2.0, 3.0, 1.0), "c"),
        ("cheapest", (2.0, 3.0, None), None),
        ("cheapest", (None, 3.0, None), "b"),
        ("in_order", (None, None, None), None),
        (lambda offers: "c", (None, None, None), "c"),
        (lambda offers: "a", (None, None, None), None),
        # It is to run nowhere: what waits already stays.
        (skips, (None, None, None), None),
    ],
)
def test_the_policy_holds(policy: Policy, prices: tuple[float | None, ...], target: str | None) -> None:
    a, b, c = prices
    offers = [offer("a", 2 * HOUR, price_per_gpu_hour=a), offer("b", price_per_gpu_hour=b), offer("c", 60.0)]
    offers[2] = replace(offers[2], price_per_gpu_hour=c)
    better = better_place(here(), offers, policy=policy, move_gain_s=GAIN)
    assert (None if better is None else better.offer.conn_id) == target
    back = better_place(Here("c", 2 * HOUR, HOUR, False), offers, policy="in_order", move_gain_s=GAIN)
    assert back is not None
    assert back.offer.conn_id == "b"


def test_how_it_waits_is_what_the_cluster_says() -> None:
    status = JobStatus(
        "job",
        JobState.QUEUED,
        submitted_at="2026-01-01T00:00:00.000+00:00",
        expected_start="2026-01-01T02:00:00+00:00",
        queue_place=3,
    )
    now = 1767225600.0 + 600
    assert how_it_waits("a", status, [offer("a", None, clock_ahead_s=60.0)], now=now) == (
        ("a", 2 * HOUR - 660, 600.0, False)
    )
    assert how_it_waits("a", status, [offer("a", 90.0)], now=now).starts_in_s == 90.0
    assert how_it_waits("a", replace(status, expected_start=None, queue_place=1), [], now=now) == (
        ("a", None, 600.0, True)
    )


# -- the act -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing_module, "_SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(placing_module, "_LONGEST_PAUSE_S", 0.001)
    # A thread of a worker that was killed answers nothing.
    monkeypatch.setattr(placing_round, "WAIT_S", 0.3)
    monkeypatch.setattr(side_by_side, "PATIENCE_S", 0.5)


class Lab:
    """Clusters in memory, with a job that waits on ``a``."""

    def __init__(self, *names: str) -> None:
        self.clusters = {name: ModelCluster(name) for name in names}
        self.pool = Pool(tuple(Member(name) for name in names))
        self.shared: dict[str, Any] = {}
        self.carried: list[tuple[str, str]] = []
        self.carry_fails: Exception | None = None
        self.now = 1e9
        _, self.record = self.placing(Worker()).begin()
        self.clusters["a"].free = False
        self.clusters["a"].attempts[-1]["state"] = "QUEUED"

    def placing(self, worker: Worker, key: str = "try-1") -> Placing[Client]:
        return Placing(
            self.pool,
            JobToPlace(JOB_ID, key, {"gpus": 1}),
            store=ModelStore(self.shared, worker),
            members=Members(lambda conn_id: Client(self.clusters[conn_id], worker)),
            offers=worker.offers(self.clusters),
            launch=worker.launch,
            log=structlog.get_logger(),
            carry=lambda origin, target: worker.call(None, lambda: self._carry(origin, target)),
        )

    def _carry(self, origin: str, target: str) -> None:
        assert not self.clusters[origin].is_alive
        self.carried.append((origin, target))
        if self.carry_fails is not None:
            raise self.carry_fails

    def moves(self, worker: Worker, **how: Any) -> Moves:
        options: dict[str, Any] = {"move_gain_s": 10.0, "bytes_to_carry": lambda conn_id: 0, "policy": "soonest", **how}
        return Moves(
            offers=lambda: worker.offers(self.clusters)(self.pool),
            placing=lambda: self.placing(worker),
            log=structlog.get_logger(),
            wall=lambda: self.now,
            **options,
        )

    def status(self, attempt: int = 1) -> JobStatus:
        return JobStatus(JOB_ID, JobState.QUEUED, attempt=attempt)

    def moved(self, worker: Worker | None = None, **how: Any) -> str | None:
        """Look once, after another process has looked; return where the job was then said to be."""
        moved = self.moves(worker or Worker(), is_second_look=True, **how).look(self.record, self.status(2))
        return None if moved is None else moved.submission.handle.gpu_cluster_conn_id

    @property
    def alive(self) -> list[str]:
        return [name for name, cluster in self.clusters.items() if cluster.is_alive]

    def found(self) -> str:
        return self.placing(Worker(), "try-2").begin()[0].handle.gpu_cluster_conn_id


def test_two_looks_in_a_row_move_it_and_it_brings_along_what_it_has() -> None:
    lab = Lab("a", "b", "c")
    moves = lab.moves(Worker())
    assert moves.look(lab.record, lab.status()) is None
    lab.now += APART_S - 1
    assert moves.look(lab.record, lab.status()) is None
    lab.now += 1
    moved = moves.look(lab.record, lab.status())
    assert moved is not None
    assert (moved.record.conn_id, moved.record.moves, moved.record.stage) == ("b", 1, "launched")
    assert (lab.alive, lab.carried) == (["b"], [("a", "b")])
    assert lab.shared["record"]["conn_id"] == lab.found() == "b"


def test_a_look_that_finds_nothing_better_begins_anew() -> None:
    lab = Lab("a", "b")
    moves = lab.moves(Worker())
    for is_free in (True, False, True):
        lab.clusters["b"].free = is_free
        assert moves.look(lab.record, lab.status()) is None
        lab.now += APART_S
    assert moves.look(lab.record, lab.status()) is not None


def test_after_a_move_it_waits_before_the_next_and_there_are_not_many() -> None:
    lab = Lab("a", "b")
    record = replace(lab.record, moves=1)
    came = "2001-09-09T01:46:35+00:00"  # five seconds ago
    for again, waited_s in ((False, 0.0), (True, 5.0)):
        lab.now = 1e9 + waited_s
        moves = lab.moves(Worker(), is_second_look=True)
        moved = moves.look(record, replace(lab.status(), submitted_at=came))
        assert (moved is not None) == again
    assert lab.moves(Worker(), is_second_look=True).look(replace(record, moves=MOST_MOVES), lab.status()) is None


def test_what_must_be_brought_along_needs_a_worker() -> None:
    lab = Lab("a", "b")
    for attempt, is_staged in ((2, False), (1, True)):
        moves = lab.moves(Worker(), bytes_to_carry=None, is_staged=is_staged)
        assert moves.look(lab.record, lab.status(attempt)) is None
        lab.now += APART_S
        with pytest.raises(WorkerNeeded):
            moves.look(lab.record, lab.status(attempt))
    assert lab.shared["record"] == lab.record.to_json()
    assert lab.alive == ["a"]


def test_what_cannot_be_brought_along_keeps_it_where_it_is() -> None:
    lab = Lab("a", "b")

    def cannot(conn_id: str) -> int:
        raise CannotCarryError("outputs/link is a link that leads out of outputs/")

    assert lab.moved(bytes_to_carry=cannot) is None
    assert (lab.alive, lab.carried) == (["a"], [])


def test_gpus_that_others_have_taken_meanwhile_move_nothing() -> None:
    lab = Lab("a", "b")

    def taken(conn_id: str | None) -> None:
        # After the last look, before the claim.
        if lab.shared["record"]["stage"] == "chosen":
            lab.clusters["b"].free = False

    assert lab.moved(Worker(before=taken)) == "a"
    assert lab.alive == ["a"]
    assert lab.shared["record"]["conn_id"] == "a"
    assert len(lab.clusters["a"].attempts) == 1


def test_a_job_that_starts_in_the_very_moment_stays() -> None:
    lab = Lab("a", "b")

    def starts(conn_id: str | None) -> None:
        if lab.clusters["b"].kind == "claim":
            lab.clusters["a"].attempts[-1]["state"] = "RUNNING"

    assert lab.moved(Worker(after=starts)) == "a"
    assert lab.alive == ["a"]
    assert lab.clusters["b"].attempts == []
    assert lab.clusters["b"].kind != "claim"
    assert (lab.shared["record"]["conn_id"], lab.shared["record"]["moves"]) == ("a", 0)


@pytest.mark.parametrize(
    ("carry", "launch"),
    [(NoSpaceError("disk full"), None), (GpuClusterConnectionError("gone"), None), (None, NoSpaceError("disk full"))],
)
def test_a_cluster_that_refuses_it_after_all_sends_it_back(carry: Exception | None, launch: Exception | None) -> None:
    lab = Lab("a", "b")
    lab.carry_fails, lab.clusters["b"].refuses = carry, launch
    assert lab.moved() == "a"
    assert lab.alive == ["a"]
    assert lab.found() == "a"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 30))
def test_a_worker_that_is_killed_at_any_step_of_a_move_leaves_one_job(step: int, when: str) -> None:
    lab = Lab("a", "b", "c")
    worker = Worker(**{when: NthStep(step, die)})
    try:
        assert lab.moved(worker) == "b"
    except WorkerKilled:
        assert worker.is_dead
    assert len(lab.alive) <= 1
    found = lab.found()
    assert lab.alive == [found]
    # Wherever it has gone to, it has brought along what it had.
    assert found == "a" or ("a", found) in lab.carried


@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("step", range(1, 26))
def test_a_cluster_that_goes_down_at_any_step_of_a_move_leaves_one_job(step: int, name: str) -> None:
    lab = Lab("a", "b", "c")
    down: set[str] = set()
    fails = NthStep(step, lambda _: down.add(name))

    def before(conn_id: str | None) -> None:
        fails(conn_id)
        if conn_id in down:
            raise GpuClusterConnectionError(f"{conn_id} is down")

    try:
        lab.moved(Worker(before=before))
    except GpuClusterConnectionError:
        assert down
    assert len(lab.alive) <= 1
    down.clear()
    found = lab.found()
    assert lab.alive == [found]


def test_a_job_that_has_ended_meanwhile_is_not_launched_again() -> None:
    lab = Lab("a", "b")
    lab.clusters["a"].attempts[-1]["state"] = "SUCCEEDED"
    assert lab.moved() == "a"
    assert lab.alive == []
