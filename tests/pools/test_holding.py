"""When a placement is renewed, and when what was launched under it is surely gone: by the clocks of both sides."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from airflow_provider_gpu_cluster.pools.holding import (
    ClockTimes,
    Holding,
    gone_after_s,
    gone_at,
    is_newer,
    start_by_there,
    while_deferred,
)
from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, LAUNCHED, Elsewhere, PlacementRecord

F = 600.0
RECORD = PlacementRecord(
    "job", 1, "k", "a", ("a", "b"), stage=LAUNCHED, start_by=1000.0 + F, gone_after_s=gone_after_s(F, 60.0, 30.0)
)


def at(seconds: float, *, wall_ahead: float = 0.0) -> ClockTimes:
    return ClockTimes(1000.0 + seconds + wall_ahead, 50.0 + seconds)


def holding(record: PlacementRecord = RECORD, failover_after_s: float | None = F) -> Holding:
    return Holding(record, failover_after_s=failover_after_s, now=at(0))


def test_how_long_a_job_may_run_on_unrenewed() -> None:
    # 10 s, and 1 % of all that two clocks measure.
    assert gone_after_s(600.0, 60.0, 30.0) == pytest.approx(60 + 30 + 10 + 0.01 * (900 + 60 + 30))
    assert gone_after_s(600.0, None, 30.0) is None
    assert gone_after_s(600.0, 0.0, 0.0) == pytest.approx(10 + 9)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [({}, 1600 + 109.9), ({"start_by": None}, None), ({"gone_after_s": None}, None)],
)
def test_gone_at(changes: dict[str, Any], gone: float | None) -> None:
    found = gone_at(replace(RECORD, **changes))
    assert found == (None if gone is None else pytest.approx(gone))


@pytest.mark.parametrize(("seconds", "due"), [(0, False), (199, False), (200, True), (599, True), (10_000, True)])
def test_a_renewal_is_due_after_a_third(seconds: float, due: bool) -> None:
    assert holding().is_renewal_due(at(seconds)) is due


def test_a_short_orphan_timeout_is_renewed_more_often_under_the_same_date() -> None:
    one = holding()
    one.note_orphan_timeout(60.0)
    assert not one.is_renewal_due(at(14))
    assert one.is_renewal_due(at(15))
    assert one.renewal(at(15)) == RECORD
    one.renewed(at(15))
    assert not one.is_renewal_due(at(29))
    assert one.is_renewal_due(at(30))
    assert one.renewal(at(200)).start_by == 1200 + F


def test_a_renewal_is_due_by_either_clock() -> None:
    one = holding()
    one.renewed(at(0))
    # Somebody has set the wall clock back, and then forward.
    assert one.is_renewal_due(at(200, wall_ahead=-3600))
    assert not one.is_renewal_due(at(100, wall_ahead=-3600))
    assert one.is_renewal_due(at(100, wall_ahead=3600))
    one.note_orphan_timeout(None)
    assert not one.is_renewal_due(at(199))


@pytest.mark.parametrize("one", [holding(failover_after_s=None), holding(replace(RECORD, start_by=None))])
def test_a_placement_without_a_date_is_neither_renewed_nor_given_up(one: Holding) -> None:
    one.unreached(at(0))
    assert not one.is_renewal_due(at(1e9))
    assert not one.may_fail_over(at(1e9))
    assert one.start_by_there(at(0)) is None


def test_a_renewal_never_comes_before_the_date_that_is_known() -> None:
    assert holding().renewal(at(200)).start_by == 1200 + F
    assert holding().renewal(at(200, wall_ahead=-3600)).start_by == 1000 + F


def test_the_date_there_needs_a_clock_that_was_looked_at_lately() -> None:
    one = holding()
    assert one.start_by_there(at(0)) is None
    one.note_clock(1000.0 - 3600, at(0))  # an hour behind
    assert one.start_by_there(at(0)) == 1000 + F - 3600
    assert one.start_by_there(at(300)) == 1000 + F - 3600
    assert one.start_by_there(at(301)) is None
    assert start_by_there(1600.0, there_at_reply=5.0, own_at_reply=1000.0) == 605.0
    assert start_by_there(None, there_at_reply=5.0, own_at_reply=1000.0) is None


@pytest.mark.parametrize(
    ("lost_at", "now", "may"),
    [
        (0, 709.9, False),  # not gone yet
        (0, 710.0, True),
        (200, 799, False),  # not out of reach for long enough
        (200, 800, True),
        (None, 10_000, False),  # in contact
    ],
)
def test_failover(lost_at: float | None, now: float, may: bool) -> None:
    one = holding()
    if lost_at is not None:
        one.unreached(at(lost_at))
    assert one.may_fail_over(at(now)) is may


def test_an_answer_ends_an_outage() -> None:
    one = holding()
    one.unreached(at(0))
    one.reached()
    one.unreached(at(500))
    assert not one.may_fail_over(at(1099))
    assert one.may_fail_over(at(1100))


def test_a_wall_clock_that_was_set_forward_makes_nothing_sure() -> None:
    one = holding()
    one.unreached(at(0))
    assert not one.may_fail_over(at(650, wall_ahead=86_400))
    assert one.may_fail_over(at(711, wall_ahead=86_400))


def test_a_later_date_in_the_store_puts_it_off() -> None:
    one = holding()
    one.dated(one.renewal(at(200)), at(200))
    one.unreached(at(200))
    assert not one.may_fail_over(at(909))
    assert one.may_fail_over(at(911))


def test_without_an_orphan_timeout_nothing_is_ever_sure() -> None:
    one = holding(replace(RECORD, gone_after_s=None))
    one.unreached(at(0))
    assert not one.may_fail_over(at(1e9))


def test_while_a_trigger_renews_the_tasks_own_store_names_no_date() -> None:
    assert while_deferred(RECORD, may_launch=False) == replace(RECORD, start_by=None)
    unsure = while_deferred(RECORD, may_launch=True)
    assert (unsure.conn_id, unsure.stage, unsure.start_by, unsure.epoch) == (None, CHOSEN, None, 1)
    assert gone_at(unsure) is None


@pytest.mark.parametrize(
    ("changes", "newer"),
    [
        ({}, False),
        ({"epoch": 2, "start_by": None}, True),
        ({"key": "l", "start_by": None}, True),
        ({"key": "j", "start_by": 1e9}, False),
        ({"start_by": 1601.0}, True),
        ({"start_by": None}, False),
    ],
)
def test_which_record_is_newer(changes: dict[str, Any], newer: bool) -> None:
    assert is_newer(replace(RECORD, **changes), RECORD) is newer


# -- two clusters and those who wait, in random interleavings ---------------------------------------------------------

AHEAD_S, ORPHAN_S, GRACE_S = 60.0, 150.0, 30.0


@dataclass
class ModelCluster:
    """What a cluster does by the words of a placement. It is a model, and runs nothing."""

    rate: float
    offset: float
    grace_s: float
    epoch: int = 0
    start_by: float = 0.0
    state: str = "nothing"
    renewed_at: float = 0.0
    ends_at: float = 0.0
    ran: bool = False

    def clock(self, t: float) -> float:
        return self.offset + t * self.rate

    def claim(self, t: float, epoch: int, start_by: float) -> bool:
        """Take an attempt in, which waits."""
        if epoch <= self.epoch or self.clock(t) > start_by:
            return False
        self.epoch, self.start_by, self.state, self.renewed_at = epoch, start_by, "queued", self.clock(t)
        return True

    def renew(self, t: float, epoch: int, start_by: float) -> bool:
        now = self.clock(t)
        if epoch != self.epoch or now > self.start_by or now > start_by or self.state == "ended":
            return False
        self.start_by, self.renewed_at = max(self.start_by, start_by), now
        return True

    def end(self, epoch: int) -> None:
        if epoch > self.epoch:
            self.epoch, self.state = epoch, "ended"

    def live(self, t: float, wants_to_start: bool) -> None:
        now = self.clock(t)
        if self.state == "queued" and wants_to_start:
            self.state = "running" if now <= self.start_by else "ended"
            self.renewed_at = max(self.renewed_at, now) if self.state == "running" else self.renewed_at
        elif self.state == "running" and now > self.renewed_at + ORPHAN_S:
            self.state, self.ends_at = "ending", now + self.grace_s
        elif self.state == "ending" and now >= self.ends_at:
            self.state = "ended"

    @property
    def runs(self) -> bool:
        return self.state in ("running", "ending")


@dataclass
class ModelWaiter:
    """One process that waits: it renews, and fails over."""

    holding: Holding
    clusters: dict[str, ModelCluster]
    store: list[PlacementRecord]
    pending: list[tuple[float, str, int, float]] = field(default_factory=list)

    def step(self, now: ClockTimes, t: float, chance: random.Random, reachable: set[str]) -> None:
        one, record = self.holding, self.holding.record
        stored = self.store[0]
        if stored.epoch > record.epoch:
            # Another process has failed over: follow it.
            self.holding = Holding(stored, failover_after_s=AHEAD_S, now=now)
            return
        assert record.conn_id is not None
        cluster = self.clusters[record.conn_id]
        if record.conn_id not in reachable:
            one.unreached(now)
            if one.may_fail_over(now) and not is_newer(self.store[0], record):
                self._fail_over(now, t, reachable)
            return
        one.reached()
        if not one.is_renewal_due(now):
            return
        one.note_clock(cluster.clock(t - chance.random()), now)
        renewed = one.renewal(now)
        self.store[0] = renewed
        one.dated(renewed, now)
        there = one.start_by_there(now)
        assert there is not None
        fate = chance.random()
        if fate < 0.6:
            if cluster.renew(t, record.epoch, there):
                one.renewed(now)
        elif fate < 0.9:
            # Held up on its way, for as long as anything.
            self.pending.append((t + chance.expovariate(1 / 100), record.conn_id, record.epoch, there))

    def _fail_over(self, now: ClockTimes, t: float, reachable: set[str]) -> None:
        before = self.holding.record
        assert before.conn_id is not None
        elsewhere = {**before.elsewhere, before.conn_id: Elsewhere(before.epoch, gone_at(before))}
        record = replace(before, epoch=before.epoch + 1, elsewhere=elsewhere)
        others = [name for name in self.clusters if name not in record.elsewhere and name in reachable]
        if not others:
            return
        start_by = now.wall + AHEAD_S
        chosen = replace(
            record,
            conn_id=others[0],
            start_by=start_by,
            gone_after_s=gone_after_s(AHEAD_S, ORPHAN_S, GRACE_S),
            stage=LAUNCHED,
        )
        self.store[0] = chosen
        self.holding = Holding(chosen, failover_after_s=AHEAD_S, now=now)
        cluster = self.clusters[others[0]]
        there = start_by_there(start_by, there_at_reply=cluster.clock(t - 1), own_at_reply=now.wall)
        assert there is not None
        cluster.claim(t, chosen.epoch, there)


def _life(seed: int) -> tuple[int, bool]:
    """Return how often the job was launched elsewhere, and whether it ever ran on two clusters at once."""
    chance = random.Random(seed)
    own_rate = 1.0
    clusters = {
        name: ModelCluster(
            rate=own_rate * chance.uniform(0.99, 1.01),
            offset=chance.uniform(-1e5, 1e5),
            grace_s=chance.uniform(0, GRACE_S),
        )
        for name in ("a", "b", "c")
    }
    # A second worker, whose clock was set a little differently, may still wait for the same job.
    skews = [chance.uniform(-2, 2) for _ in range(chance.choice((1, 1, 2)))]
    first = ClockTimes(0.0, 0.0)
    record = replace(
        RECORD, members=("a", "b", "c"), start_by=AHEAD_S, gone_after_s=gone_after_s(AHEAD_S, ORPHAN_S, GRACE_S)
    )
    clusters["a"].claim(
        0.0, 1, start_by_there(AHEAD_S, there_at_reply=clusters["a"].clock(-1), own_at_reply=0.0) or 0.0
    )
    store = [record]
    waiters = [ModelWaiter(Holding(record, failover_after_s=AHEAD_S, now=first), clusters, store) for _ in skews]
    reachable, both = set(clusters), False
    t = 0.0
    while t < 3000:
        t += chance.uniform(0.5, 8)
        if chance.random() < 0.02:
            reachable ^= {chance.choice("abc")}
        for name, cluster in clusters.items():
            cluster.live(t, wants_to_start=chance.random() < 0.01)
            if name in reachable and store[0].conn_id != name and name in store[0].elsewhere:
                cluster.end(store[0].epoch)
        for waiter, skew in zip(waiters, skews, strict=True):
            for message in [one for one in waiter.pending if one[0] <= t and one[1] in reachable]:
                waiter.pending.remove(message)
                _, conn_id, epoch, there = message
                clusters[conn_id].renew(t, epoch, there)
            # Each side sees the net as it is to it, and may stand still for a while.
            if chance.random() < 0.8:
                unseen = {chance.choice("abc")} if chance.random() < 0.05 else set()
                waiter.step(ClockTimes(t + skew, t), t, chance, reachable - unseen)
        both = both or sum(cluster.runs for cluster in clusters.values()) > 1
    return store[0].epoch - 1, both


def test_a_job_never_runs_on_two_clusters_at_once() -> None:
    lives = [_life(seed) for seed in range(150)]
    assert [seed for seed, (_, both) in enumerate(lives) if both] == []
    # It does fail over, or the test would show nothing.
    assert sum(times for times, _ in lives) > 100


def test_without_the_wait_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model finds what it is to find."""
    monkeypatch.setitem(globals(), "gone_after_s", lambda *durations: 0.0)
    assert any(_life(seed)[1] for seed in range(150))
