"""What is done for a job of a pool while a task waits for it, on clocks of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, PlacementUnknownError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.jobs.submission import Submission
from airflow_provider_gpu_cluster.pools.holding import ClockTimes, gone_after_s, gone_at
from airflow_provider_gpu_cluster.pools.keeping import JobWentElsewhere, Keeper, WorkerNeeded
from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, LAUNCHED, Elsewhere, PlacementRecord

F = 600.0
GONE_AFTER_S = gone_after_s(F, 60.0, 30.0)
QUEUED = JobStatus("job", JobState.QUEUED, attempt=1)
RUNNING = JobStatus("job", JobState.RUNNING, attempt=1)
ENDED = JobStatus("job", JobState.CANCELLED, attempt=1)


class Store:
    """Keeps the record of a task."""

    def __init__(self, record: PlacementRecord) -> None:
        self.record = record
        self.saved: list[float | None] = []
        self.error: Exception | None = None

    is_precise = True

    @property
    def latest(self) -> PlacementRecord:
        return self.record

    def load(self) -> PlacementRecord:
        return self.record

    def mark_of(self, conn_id: str) -> None:
        return None

    def save(self, record: PlacementRecord) -> None:
        if self.error is not None:
            raise self.error
        self.record = record
        self.saved.append(record.start_by)


class Member:
    """A cluster of the pool. It is a fake: it says what a test says."""

    def __init__(self, log: list[Any], *, clock: float = 5000.0) -> None:
        self.log = log
        self.clock = clock
        self.accepts = True
        self.error: Exception | None = None
        self.outcome = "ended"

    def retrying_for(self, seconds: float) -> Member:
        return self

    def renew(self, jobs: Sequence[Any]) -> Any:
        if self.error is not None:
            raise self.error
        self.log.append(("renew", [(one["epoch"], one["key"], one["start_by"]) for one in jobs]))
        return {"jobs": [self.accepts for _ in jobs], "now": self.clock}

    def place(self, job_id: str, placement: Any, kind: str, *, by: str = "") -> Any:
        if self.error is not None:
            raise self.error
        self.log.append((kind, placement["epoch"], placement["conn_id"]))
        return {"outcome": self.outcome, "now": self.clock}


class Log:
    """A task's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(event)

    warning = info


class Scene:
    """A job that was launched on a, of the pool a and b."""

    def __init__(self, **changes: Any) -> None:
        self.seconds = 0.0
        record = PlacementRecord("job", 1, "k", "a", ("a", "b"), LAUNCHED, 1000.0 + F, GONE_AFTER_S)
        self.store = Store(replace(record, **changes))
        self.asked: list[Any] = []
        self.members = {"a": Member(self.asked), "b": Member(self.asked)}
        self.placed: list[PlacementRecord] = []
        self.to = "b"
        self.place_error: Exception | None = None
        self.log = Log()
        self.moved: Any = None
        self.looks = 0
        self.keeper = self.make()

    def make(self, **how: Any) -> Keeper:
        usual = {"place_again": self.place_again, "failover_after_s": F, "log": self.log}
        how = {**usual, **how, "open_member": self.members.__getitem__, "by": "the task", "now": self.now}
        return Keeper(self.store.record, self.store, **how)

    def now(self) -> ClockTimes:
        return ClockTimes(1000.0 + self.seconds, self.seconds)

    def submission(self) -> Submission:
        return Submission(JobHandle("job", self.to, f"/{self.to}/job", "host", None, 1), QUEUED, True)

    def place_again(self) -> tuple[Submission, PlacementRecord]:
        record = self.store.record
        self.placed.append(record)
        if self.place_error is not None:
            raise self.place_error
        elsewhere = {str(record.conn_id): Elsewhere(record.epoch, gone_at(record))}
        placed = replace(
            record,
            epoch=record.epoch + 1,
            conn_id=self.to,
            start_by=1000.0 + self.seconds + F,
            elsewhere={} if self.to == record.conn_id else elsewhere,
        )
        self.store.save(placed)
        return self.submission(), placed

    def look(self, record: PlacementRecord, status: JobStatus) -> Any:
        self.looks += 1
        return self.moved

    def contact(self, status: JobStatus = RUNNING) -> None:
        self.keeper.in_contact(self.members["a"], status)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_store_is_told_of_a_later_date_before_the_cluster(scene: Scene) -> None:
    scene.contact()
    assert scene.asked == []
    scene.seconds = 200
    dates: list[float | None] = []
    renew = scene.members["a"].renew

    def renewed(jobs: Any) -> Any:
        dates.append(scene.store.record.start_by)
        return renew(jobs)

    scene.members["a"].renew = renewed  # type: ignore[method-assign]
    scene.contact()
    # First what time it is there; then the date by the clock there.
    assert scene.asked == [("renew", []), ("renew", [(1, "k", 5000.0 + F)])]
    assert dates == [1000.0 + F, 1200.0 + F]
    scene.contact()
    assert len(scene.asked) == 2
    scene.seconds = 400
    scene.members["a"].clock = 5200.0
    scene.contact()
    assert scene.asked[2:] == [("renew", [(1, "k", 5200.0 + F)])]


def test_what_the_store_does_not_keep_is_not_told_to_the_cluster(scene: Scene) -> None:
    scene.store.error = GpuClusterConnectionError("Airflow is away")
    scene.seconds = 200
    scene.contact()
    assert scene.asked == [("renew", [])]
    assert scene.log.lines == ["GPU job's place could not be renewed now, trying again: Airflow is away"]
    scene.contact()
    assert len(scene.asked) == 1
    scene.store.error = None
    scene.seconds = 206
    scene.contact()
    assert scene.store.saved == [1206.0 + F]


def test_a_renewal_that_is_lost_is_repeated(scene: Scene) -> None:
    scene.seconds, scene.members["a"].error = 200, GpuClusterConnectionError("broken")
    scene.contact()
    scene.seconds, scene.members["a"].error = 205, None
    scene.contact()
    assert scene.store.record.start_by == 1205 + F


def test_a_placement_that_counts_no_more_is_looked_for(scene: Scene) -> None:
    scene.members["a"].accepts = False
    scene.seconds, scene.to = 200, "a"
    scene.contact()
    # It is where it was, under a new placement.
    assert [record.conn_id for record in scene.placed] == ["a"]
    scene.members["a"].accepts, scene.to = False, "b"
    scene.seconds = 500
    with pytest.raises(JobWentElsewhere) as went:
        scene.contact()
    assert went.value.submission.handle.gpu_cluster_conn_id == "b"


@pytest.mark.parametrize(
    "status",
    [replace(ENDED, placement=word) for word in ("withdrawn", "expired", "fenced")]
    + [replace(RUNNING, moved_to="b"), JobStatus("job", JobState.UNKNOWN, moved_to="b")],
)
def test_an_end_of_a_placement_is_no_end_of_the_job(scene: Scene, status: JobStatus) -> None:
    assert scene.keeper.is_due(status, is_out_of_reach=False)
    with pytest.raises(JobWentElsewhere):
        scene.contact(status)
    assert scene.placed[0].conn_id == "a"


def test_what_cannot_be_placed_now_is_tried_again_after_a_pause(scene: Scene) -> None:
    expired = replace(ENDED, placement="expired")
    scene.place_error = PlacementUnknownError("b may have it")
    scene.contact(expired)
    assert scene.log.lines == ["GPU job cannot be placed now, waiting on: b may have it"]
    assert not scene.keeper.is_due(expired, is_out_of_reach=False)
    scene.contact(expired)
    assert len(scene.placed) == 1
    scene.seconds, scene.place_error = 11, None
    assert scene.keeper.is_due(expired, is_out_of_reach=False)
    with pytest.raises(JobWentElsewhere):
        scene.contact(expired)


def test_failover_waits_until_the_job_is_surely_gone(scene: Scene) -> None:
    for seconds in (0, 300, 600, 1000 + F + GONE_AFTER_S - 1000):  # type: ignore[operator]
        scene.seconds = seconds
        assert not scene.keeper.is_due(RUNNING, is_out_of_reach=True)
        scene.keeper.out_of_reach()
    scene.seconds += 0.1
    assert scene.keeper.is_due(RUNNING, is_out_of_reach=True)
    with pytest.raises(JobWentElsewhere):
        scene.keeper.out_of_reach()
    assert len(scene.placed) == 1
    assert scene.keeper.record.elsewhere == {"a": Elsewhere(1, 1000 + F + GONE_AFTER_S)}  # type: ignore[operator]
    assert scene.keeper.may_have_it == ["b", "a"]


@pytest.mark.parametrize("changes", [{"gone_after_s": None}, {"start_by": None}])
def test_what_is_never_sure_is_waited_for(changes: dict[str, Any]) -> None:
    scene = Scene(**changes)
    for seconds in (0, 1e9):
        scene.seconds = seconds
        scene.keeper.out_of_reach()
    assert scene.placed == []


def test_a_launch_elsewhere_of_which_no_more_is_known_may_have_it(scene: Scene) -> None:
    scene.seconds = 1000 + F + GONE_AFTER_S  # type: ignore[operator]

    def begin_and_lose_the_reply() -> Any:
        scene.store.save(replace(scene.store.record, epoch=2, conn_id="b", elsewhere={"a": Elsewhere(1, 9.0)}))
        raise PlacementUnknownError("it may have been launched on b")

    scene.keeper = scene.make(place_again=begin_and_lose_the_reply)
    scene.keeper.out_of_reach()
    scene.seconds += F + 1
    scene.keeper.out_of_reach()
    assert scene.keeper.record.conn_id == "a"
    assert scene.keeper.may_have_it == ["a", "b"]


@pytest.mark.parametrize("status", [QUEUED, replace(ENDED, placement="withdrawn", moved_to="b")])
def test_one_who_has_begun_to_move_it_is_gone(scene: Scene, status: JobStatus) -> None:
    scene.store.record = replace(scene.store.record, epoch=2, conn_id="b", stage=CHOSEN)
    scene.keeper = scene.make(here="a")
    assert scene.keeper.is_due(status, is_out_of_reach=False)
    with pytest.raises(JobWentElsewhere):
        scene.keeper.in_contact(scene.members["a"], status)
    assert len(scene.placed) == 1


def test_one_who_has_failed_over_is_gone(scene: Scene) -> None:
    scene.store.record = replace(scene.store.record, epoch=2, conn_id="b", elsewhere={"a": Elsewhere(1, 9.0)})
    scene.keeper = scene.make(here="a")
    assert scene.keeper.is_due(None, is_out_of_reach=True)
    with pytest.raises(JobWentElsewhere):
        scene.keeper.out_of_reach()


def test_no_failover_past_another_who_is_in_contact(scene: Scene) -> None:
    scene.keeper.out_of_reach()
    scene.seconds = 800
    # An earlier try of the task still renews.
    scene.store.record = replace(scene.store.record, start_by=1700.0 + F)
    scene.keeper.out_of_reach()
    assert scene.placed == []
    scene.seconds = 700 + F + GONE_AFTER_S + 100  # type: ignore[operator]
    with pytest.raises(JobWentElsewhere):
        scene.keeper.out_of_reach()


def test_no_failover_where_another_has_failed_over(scene: Scene) -> None:
    scene.keeper.out_of_reach()
    scene.seconds = 800
    theirs = replace(scene.store.record, epoch=2, key="other", conn_id="b", start_by=1800.0 + F)
    scene.store.record = theirs
    with pytest.raises(JobWentElsewhere):
        scene.keeper.out_of_reach()
    assert scene.placed == [theirs]


def test_a_cluster_that_comes_back_is_told(scene: Scene, eventually: Callable[..., Any]) -> None:
    scene.store.record = replace(
        scene.store.record, epoch=2, conn_id="b", elsewhere={"a": Elsewhere(1, 9.0)}, start_by=1000.0 + F
    )
    scene.keeper, here, back = scene.make(), scene.members["b"], scene.members["a"]
    back.error = GpuClusterConnectionError("still away")
    scene.keeper.in_contact(here, RUNNING)
    eventually(lambda: not scene.keeper._telling)
    assert scene.keeper.may_have_it == ["b", "a"]
    back.error = None
    scene.keeper.in_contact(here, RUNNING)
    assert scene.asked == []
    scene.seconds, back.outcome = 31, "launched"  # what runs there is being ended
    scene.keeper.in_contact(here, RUNNING)
    eventually(lambda: not scene.keeper._telling)
    scene.seconds, back.outcome = 62, "ended"
    scene.keeper.in_contact(here, RUNNING)
    eventually(lambda: not scene.keeper._telling)
    assert scene.asked == [("end", 2, "b"), ("end", 2, "b")]
    scene.keeper.in_contact(here, RUNNING)
    assert scene.store.record.elsewhere == {}
    assert not scene.keeper.is_due(RUNNING, is_out_of_reach=False)


def test_only_a_worker_can_go_on(scene: Scene) -> None:
    def place_again() -> Any:
        raise WorkerNeeded

    keeper = scene.make(place_again=place_again)
    keeper.out_of_reach()
    scene.seconds = 800
    with pytest.raises(WorkerNeeded):
        keeper.out_of_reach()


def test_a_move_is_thought_about_while_the_job_waits(scene: Scene) -> None:
    class Moves:
        look = staticmethod(scene.look)

    scene.keeper = scene.make(moves=Moves())
    scene.contact(RUNNING)
    assert scene.looks == 0
    scene.contact(replace(QUEUED, queue_place=3))
    scene.contact(replace(QUEUED, queue_place=3))
    assert scene.looks == 1
    scene.contact(replace(QUEUED, queue_place=2))
    assert scene.looks == 2
    scene.seconds = 61
    record = replace(scene.store.record, epoch=2, conn_id="b")
    scene.moved = SimpleNamespace(submission=scene.submission(), record=record)
    with pytest.raises(JobWentElsewhere):
        scene.contact(replace(QUEUED, queue_place=2))
    assert scene.keeper.record.conn_id == "b"


def test_an_end_of_the_job_is_left_alone(scene: Scene) -> None:
    scene.seconds = 300
    scene.contact(ENDED)
    assert scene.asked == scene.placed == []
