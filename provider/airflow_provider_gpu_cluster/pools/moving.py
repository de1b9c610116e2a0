"""
Moves a job that waits to a cluster where it would start much sooner.

A job moves if, in two looks in a row, it is expected to start elsewhere at least ``move_gain`` sooner, and in less than
half the time. What has to be sent there counts: its inputs, and what it has saved. Numbers that nobody knows move
nothing: a job does not go to a cluster that does not say when it would start. It does not leave one that does not say
it either, unless it has waited there for ``move_gain`` and others wait before it, and then only for GPUs that are free.

After a move, the next one is thought about when the job has waited for ``move_gain`` again, and a try moves it at most
:data:`MOST_MOVES` times. The policy of the pool holds: with ``cheapest`` a job goes only to where a GPU-hour costs no
more, with ``in_order`` only to a member before its own, and a function is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_gpu_cluster.exceptions import CannotCarryError, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import FREE_NOW
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.pools.choice import BUILD_S, TYPICAL_BYTES_PER_S, choose, long_text, whole_wait_s
from airflow_provider_gpu_cluster.pools.keeping import WorkerNeeded
from airflow_provider_gpu_cluster.pools.move import Move
from airflow_provider_gpu_cluster.pools.pool import CHEAPEST, IN_ORDER, POLICIES, Policy

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.members import Members
    from airflow_provider_gpu_cluster.pools.offer import Offer
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
    from airflow_provider_gpu_cluster.pools.placing import Placing

MOST_MOVES = 5
# A start there must be sooner by this factor.
FACTOR = 2.0
# Two looks that are closer together count as one, in seconds: they may be at the same answers.
APART_S = 20.0


class Here(NamedTuple):
    """
    How a job waits where it is.

    :param conn_id: its cluster.
    :param starts_in_s: when it is expected to start, in seconds from now; None if nobody says.
    :param waited_s: for how long it has waited there.
    :param is_next: whether nobody waits before it, as far as is known.
    """

    conn_id: str
    starts_in_s: float | None
    waited_s: float
    is_next: bool


class Better(NamedTuple):
    """
    A cluster where a job would start sooner.

    :param starts_in_s: in seconds from now, with all that has to be sent there.
    """

    offer: Offer
    starts_in_s: float


class MovedJob(NamedTuple):
    """
    What has become of a job that was to be moved.

    :param submission: where it is, and whether it was launched there.
    :param record: the same, as the task remembers it.
    """

    submission: Submission
    record: PlacementRecord


def better_place(
    here: Here, offers: Sequence[Offer], *, policy: Policy, move_gain_s: float, carried_bytes: int = 0
) -> Better | None:
    """
    Return where a job should go that waits; None if it is to stay.

    :param offers: one of each member of the pool, in its order; among them the one of its own cluster.
    :param move_gain_s: by how much sooner it must start there, in seconds.
    :param carried_bytes: how much it has saved, and would bring along.
    """
    found = [
        Better(offer, whole_wait_s(offer) + carried_bytes / _bytes_per_s(offer))
        for offer in _allowed(here.conn_id, offers, policy)
        if offer.starts_in_s is not None
    ]
    worth = [one for one in found if _is_worth(here, one, move_gain_s)]
    if not isinstance(policy, str) and worth:
        own = [offer for offer in offers if offer.conn_id == here.conn_id and offer.answered and offer.fits]
        try:
            chosen = choose([*own, *(one.offer for one in worth)], policy).offer.conn_id
        except (AirflowSkipException, AirflowFailException):
            # By this the function says that the job is to run nowhere; it has a place already.
            chosen = here.conn_id
        worth = [one for one in worth if one.offer.conn_id == chosen]
    return min(worth, key=lambda one: one.starts_in_s / max(one.offer.member.weight, 1e-9), default=None)


def _allowed(here: str, offers: Sequence[Offer], policy: Policy) -> list[Offer]:
    """Return the offers of other clusters to which the policy lets a job go."""
    others = [offer for offer in offers if offer.conn_id != here and offer.answered and offer.fits]
    own = next((offer for offer in offers if offer.conn_id == here), None)
    if policy == IN_ORDER:
        before = [offer.conn_id for offer in offers]
        limit = before.index(here) if here in before else len(before)
        return [offer for offer in others if before.index(offer.conn_id) < limit]
    if policy == CHEAPEST:
        most = None if own is None else own.price_per_gpu_hour
        return [
            offer
            for offer in others
            if most is None or (offer.price_per_gpu_hour is not None and offer.price_per_gpu_hour <= most)
        ]
    assert policy in POLICIES or not isinstance(policy, str)
    return others


def _is_worth(here: Here, there: Better, move_gain_s: float) -> bool:
    if here.starts_in_s is None:
        is_long = here.waited_s >= move_gain_s and not here.is_next
        return is_long and there.offer.start_known_by == FREE_NOW
    gain_s = here.starts_in_s - there.starts_in_s
    return gain_s >= move_gain_s and there.starts_in_s * FACTOR <= here.starts_in_s


def _bytes_per_s(offer: Offer) -> float:
    """Return how fast something is sent to a cluster, in bytes per second, as far as that is known."""
    if offer.missing_bytes and offer.send_s:
        return offer.missing_bytes / offer.send_s
    return TYPICAL_BYTES_PER_S


def how_it_waits(conn_id: str, status: JobStatus, offers: Sequence[Offer], *, now: float) -> Here:
    """
    Return how a job waits where it is, by its status and by what its cluster offers.

    :param now: in seconds since the epoch.
    """
    own = next((offer for offer in offers if offer.conn_id == conn_id and offer.answered), None)
    told = [] if own is None or own.starts_in_s is None else [own.starts_in_s]
    expected = _moment(status.expected_start)
    if expected is not None:
        ahead_s = 0.0 if own is None else own.clock_ahead_s
        told.append(max(0.0, expected - now - ahead_s))
    starts_in_s = min(told, default=None)
    if starts_in_s is not None and own is not None and own.is_environment_built is False:
        starts_in_s += BUILD_S
    submitted = _moment(status.submitted_at)
    waited_s = 0.0 if submitted is None else max(0.0, now - submitted)
    is_next = status.queue_place == 1 or (own is not None and own.waiting == 0)
    return Here(conn_id, starts_in_s, waited_s, is_next)


def _moment(text: str | None) -> float | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


class Moves:
    """
    Moves one job while a task waits for it. Its methods block, and are called from one thread at a time.

    :param offers: asks all clusters of the pool for their offers for the job; tasks of one process may share answers.
    :param placing: makes what places the job.
    :param policy: of the pool.
    :param move_gain_s: how much sooner it must start elsewhere, in seconds.
    :param bytes_to_carry: returns how much it would bring along from a cluster; None if this process cannot bring
        anything along, as it has no connection for files.
    :param is_staged: whether a task before has staged its inputs, so that they have to be brought along.
    :param is_second_look: whether another process has looked before this one, and found that it should move.
    """

    def __init__(
        self,
        *,
        offers: Callable[[], list[Offer]],
        placing: Callable[[], Placing[Any]],
        policy: Policy,
        move_gain_s: float,
        log: Log,
        bytes_to_carry: Callable[[str], int] | None,
        is_staged: bool = False,
        is_second_look: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._offers = offers
        self._placing = placing
        self._policy = policy
        self._move_gain_s = move_gain_s
        self._log = log
        self._bytes_to_carry = bytes_to_carry
        self._is_staged = is_staged
        self._seen_at: float | None = 0.0 if is_second_look else None
        self._wall = wall
        self._said = ""

    def look(self, record: PlacementRecord, status: JobStatus) -> MovedJob | None:
        """
        Move the job if it is time; return what has become of it, or None if nothing was done.

        :param record: where it waits.
        :param status: what its cluster has just said of it.
        :raises WorkerNeeded: it has to bring something along, and this process cannot do that.
        :raises GpuClusterError: it cannot be placed now; the next try to place it goes on.
        """
        now = self._wall()
        if record.conn_id is None or record.moves >= MOST_MOVES:
            return None
        if any(state is not JobState.QUEUED for state, _ in status.elements) or (
            status.elements and status.attempt > 1
        ):
            # What the elements of an array have done is not brought along.
            return None
        if self._seen_at is not None and now - self._seen_at < APART_S:
            return None
        better = self._better(record, status, self._offers(), carried_bytes=0)
        carried_bytes = 0
        if better is not None and self._is_to_carry(status):
            if self._bytes_to_carry is None:
                if self._seen_at is None:
                    self._seen_at = now
                    return None
                raise WorkerNeeded
            carried_bytes = self._carried(record.conn_id)
            if carried_bytes < 0:
                better = None
        if better is None:
            self._seen_at = None
            return None
        if self._seen_at is None:
            self._seen_at = now
            return None
        self._seen_at = None
        return self._moved(record, status, carried_bytes)

    def _better(
        self, record: PlacementRecord, status: JobStatus, offers: Sequence[Offer], *, carried_bytes: int
    ) -> Better | None:
        assert record.conn_id is not None
        here = how_it_waits(record.conn_id, status, offers, now=self._wall())
        if record.moves and here.waited_s < self._move_gain_s:
            # It has come here a moment ago.
            return None
        return better_place(
            here, offers, policy=self._policy, move_gain_s=self._move_gain_s, carried_bytes=carried_bytes
        )

    def _is_to_carry(self, status: JobStatus) -> bool:
        return self._is_staged or (status.attempt or 1) > 1

    def _carried(self, conn_id: str) -> int:
        """Return how many bytes the job would bring along; a negative number if it cannot."""
        assert self._bytes_to_carry is not None
        try:
            return self._bytes_to_carry(conn_id)
        except CannotCarryError as error:
            if str(error) != self._said:
                self._said = str(error)
                self._log.warning(f"GPU job is not moved: {error}")
            return -1

    def _moved(self, record: PlacementRecord, status: JobStatus, carried_bytes: int) -> MovedJob:
        assert record.conn_id is not None
        origin = record.conn_id
        began = time.monotonic()

        def better(offers: Sequence[Offer]) -> Offer | None:
            found = self._better(record, status, offers, carried_bytes=carried_bytes)
            if found is None:
                return None
            here = how_it_waits(origin, status, offers, now=self._wall())
            self._log.info(
                f"GPU job moves from {origin} (expected start {_in_words(here.starts_in_s)}) to "
                f"{found.offer.conn_id} ({_in_words(found.starts_in_s)})"
            )
            return found.offer

        submission, placed = self._placing().move(Move(origin, better))
        there = submission.handle.gpu_cluster_conn_id
        if there != origin:
            self._log.info(f"GPU job was moved from {origin} to {there} in {time.monotonic() - began:.3g} s")
        return MovedJob(submission, placed)


def _in_words(starts_in_s: float | None) -> str:
    if starts_in_s is None:
        return "unknown"
    return "now" if starts_in_s < 1 else f"in {long_text(starts_in_s)}"


def carry_along(
    members: Members[Cluster],
    job_id: str,
    origin: str,
    target: str,
    *,
    record: Asker,
    is_staged: bool,
    log: Log,
) -> None:
    """
    Bring along what a job needs to go on on another cluster.

    :param origin: the cluster where it was, by its connection; its last attempt has ended there.
    :param target: the cluster where it is to be launched, likewise.
    :param record: who asks for the job.
    :param is_staged: whether its inputs were staged, and so come from its old cluster as well.
    :raises GpuClusterError: something could not be brought along.
    """
    try:
        carried = members(origin).carry_to(members(target), job_id, record=record, with_inputs=is_staged)
    except GpuClusterError as error:
        log.warning(f"What the job has saved could not be brought from {origin} to {target}: {error}")
        raise
    if carried.files:
        log.info(f"{carried} from {origin} to {target}")
