"""Finds the cluster of a pool that has a job, or chooses one and launches it there: once, across all of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    PlacementExpiredError,
    PlacementOutrankedError,
    PlacementUnknownError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import placement as words
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import FREE_NOW
from airflow_provider_gpu_cluster.gpu_run.protocol.placement import order
from airflow_provider_gpu_cluster.pools.choice import Choice, choose, sending_s
from airflow_provider_gpu_cluster.pools.holding import gone_after_s
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.move import Move
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.placed_offers import (
    NO_RANK,
    holder_of,
    is_active,
    is_claimed,
    is_renewed_only,
    knows_otherwise,
    last_of,
    rank_of,
    state_of,
)
from airflow_provider_gpu_cluster.pools.placement_record import (
    CHOSEN,
    ENDED,
    LAUNCHED,
    SENT,
    PlacementRecord,
    PlacementStore,
    key_of_one,
    try_of,
)
from airflow_provider_gpu_cluster.pools.placing_round import PoolMember, tell
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.refusals import is_of_the_job, refusal_of, with_refusal
from airflow_provider_gpu_cluster.pools.side_by_side import Outcomes
from airflow_provider_gpu_cluster.pools.table import table_of
from airflow_provider_gpu_cluster.pools.whereabouts import Whereabouts

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placed, Placement, PlaceReply
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log

# Others choose at the same time, or take what was free: so often that is no reason to give up.
_MOST_ROUNDS = 40
# So often a job is sent only to GPUs that are free now; after that it may also wait for them.
_MOST_TAKEN = 4
# Files may take longer to send than was expected.
_LONGER_SENDING = 3.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.3
_NOTHING_THERE = (words.FENCED, words.ENDED)

_Member = TypeVar("_Member", bound=PoolMember)
_Result = tuple["Submission", PlacementRecord]


@dataclass(frozen=True)
class JobToPlace:
    """
    A job, and what its user wants of the pool.

    :param job_id: the job.
    :param key: the try that asks for it, see :class:`.JobIdentity`.
    :param spec: what it needs.
    :param failover_after_s: after how long without contact it may be launched elsewhere, in seconds; None for never, as
        for a job whose placement nobody renews.
    :param by: who asks, in words.
    """

    job_id: str
    key: str
    spec: Spec
    failover_after_s: float | None = None
    by: str = ""


class Placing(Generic[_Member]):
    """
    Places one job in a pool, for one try of a task; use it from one thread.

    :param store: what the task remembers.
    :param members: the open clusters.
    :param offers: asks the clusters of a pool for their offers for the job, in the order of its members.
    :param launch: sends the request to launch the job under a placement; None for one that was launched without.
    :param log: the task's log.
    :param carry: brings what the job has saved from one cluster to another, by their connections.
    :param check: raises an error when the task is to stop.
    :param choose_among: chooses among the offers of the pool; by default its policy does.
    :param settled: is told what has become of that choice: whether the cluster was claimed.
    """

    def __init__(
        self,
        pool: Pool,
        job: JobToPlace,
        *,
        store: PlacementStore,
        members: Members[_Member],
        offers: Callable[[Pool], list[Offer]],
        launch: Callable[[_Member, Placement | None], Submission],
        log: Log,
        carry: Callable[[str, str], object] | None = None,
        check: Callable[[], None] = lambda: None,
        choose_among: Callable[[Sequence[Offer]], Choice] | None = None,
        settled: Callable[[bool], None] = lambda has_taken_it: None,
    ) -> None:
        self._pool = pool
        self._job = job
        self._key = key_of_one(job.key)
        self._store = store
        self._members = members
        self._offers = offers
        self._launch = launch
        self._log = log
        self._carry = carry
        self._check = check
        self._choose_among = choose_among or partial(choose, policy=pool.policy)
        self._settled = settled
        self._known = Whereabouts(job.job_id)
        self._refused: dict[str, GpuClusterError] = {}
        self._taken = 0
        self._move: Move | None = None
        self._moves = 0

    def begin(self) -> _Result:
        """
        Find the job on the cluster that has it, or choose one and launch it there.

        :raises PlacementUnknownError: a cluster may have it and cannot be asked now.
        :raises GpuClusterError: no cluster can launch it.
        """
        self._refused, self._taken = {}, 0
        for _ in range(_MOST_ROUNDS):
            self._check()
            found = self._once()
            if found is not None:
                return found
            # Of two that choose at once, one comes first the next time.
            time.sleep(random.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S))
        raise PlacementUnknownError(
            f"job {self._job.job_id} is not launched: others have chosen clusters for it at the same time, again and "
            "again; try again later"
        )

    def move(self, move: Move) -> _Result:
        """
        Launch a job that waits on another cluster, after its own has said that it has taken it back.

        :return: where it is then. That is its own cluster, if it has begun there or the other does not take it; or any,
            if the other has refused it too late.
        :raises GpuClusterError: see :meth:`begin`, with which the next try goes on, whatever was done.
        """
        self._move = move
        return self.begin()

    def _once(self) -> _Result | None:
        """Look where the job is, and launch it if it is nowhere; return None if that has to begin anew."""
        self._known.read(self._store.load())
        before = self._known.record
        self._moves = before.moves if before is not None and try_of(before.key) == self._job.key else 0
        offers = self._look()
        self._check()
        holder = holder_of(offers)
        move, self._move = self._move, None
        chosen = None if move is None or holder is None else move.chosen(holder, offers)
        if chosen is not None:
            assert move is not None
            return self._launch_on(chosen, offers, origin=move.origin)
        if holder is not None:
            return self._join(holder, offers)
        self._refuse_if_it_may_be_elsewhere(offers)
        return self._launch_on(self._choose(offers), offers)

    def _look(self) -> list[Offer]:
        """Ask all clusters that may have the job."""
        asked: set[str] = set()
        offers: list[Offer] = []
        while not (everybody := {*self._pool.conn_ids, *self._known.named()}) <= asked:
            strangers = tuple(Member(conn_id) for conn_id in sorted(everybody - set(self._pool.conn_ids)))
            offers = self._offers(replace(self._pool, members=(*self._pool.members, *strangers)))
            asked = everybody
            for offer in offers:
                if offer.placed is not None:
                    self._known.note_told(offer.placed)
        return offers

    # -- finding it

    def _join(self, holder: Offer, offers: Sequence[Offer]) -> _Result | None:
        """Take the job where it is."""
        if not is_claimed(holder):
            # It has succeeded there unseen, and nothing came of what it was given up for: whoever asks is told so.
            return self._launch_on(holder, offers)
        record = self._record_of_joined(holder, offers)
        is_over = record.start_by is not None and record.start_by < time.time()
        if is_over or (is_renewed_only(holder) and self._job.failover_after_s is None):
            # Nobody may renew the placement that it has, or nobody will.
            return self._launch_on(holder, offers, adopt=True)
        self._end_elsewhere(holder, offers)
        self._save(record)
        assert holder.placed is not None
        try:
            return self._launched(record, holder.placed.get("placement"))
        except (PlacementOutrankedError, PlacementExpiredError):
            return None

    def _record_of_joined(self, holder: Offer, offers: Sequence[Offer]) -> PlacementRecord:
        """Return the record of the placement that the job's attempt belongs to, whoever has made that."""
        placed: Placed = holder.placed or {}
        placement, status = placed.get("placement"), placed.get("status")
        epoch, key = rank_of(holder) if placement else (0, self._key)
        date = placement.get("start_by") if placement else None
        start_by = None if date is None else date - holder.clock_ahead_s
        known = self._known.record
        if start_by is not None and known is not None and (known.conn_id, known.rank) == (holder.conn_id, (epoch, key)):
            start_by = None if known.start_by is None else max(known.start_by, start_by)
        orphan_timeout_s = status.get("orphan_timeout_s") if status else None
        return PlacementRecord(
            self._job.job_id,
            epoch,
            key,
            holder.conn_id,
            tuple(offer.conn_id for offer in offers),
            SENT,
            start_by,
            self._gone_after_s(holder, orphan_timeout_s) if is_renewed_only(holder) else None,
            self._known.elsewhere(holder.conn_id),
        )

    def _end_elsewhere(self, holder: Offer, offers: Sequence[Offer]) -> None:
        """
        Tell others where the job is, where they know otherwise: after a failover its first cluster may be back, and a
        choice of which nothing came may still have GPUs promised.
        """
        left = self._known.elsewhere(holder.conn_id)
        wrong = [
            offer.conn_id
            for offer in offers
            if offer.answered
            and offer.conn_id != holder.conn_id
            and (offer.conn_id in left or is_active(offer) or knows_otherwise(offer, holder.conn_id))
        ]
        if wrong and rank_of(holder) != NO_RANK:
            # What they know may be higher than the placement that the job runs under.
            placement = self._placement(holder.conn_id, self._known.next_epoch(), offers)
            self._tell(wrong, lambda conn_id: (placement, words.END))

    def _refuse_if_it_may_be_elsewhere(self, offers: Sequence[Offer], *, with_marks: bool = False) -> None:
        """
        Go on only if no cluster that is silent can have the job.

        :param with_marks: whether to look at the marks in the store as well, as the own one is there.
        :raises PlacementUnknownError: one may.
        """
        now = time.time()
        for offer in offers:
            if offer.answered:
                continue
            mark = self._store.mark_of(offer.conn_id) if with_marks else None
            why = self._known.why_it_may_be_at(offer.conn_id, now=now, mark=mark)
            if why is not None:
                raise PlacementUnknownError(
                    f"job {self._job.job_id} may be on {offer.conn_id}: {why}, and it does not answer "
                    f"({offer.why_not}). So the job is launched nowhere else, {self._until(offer.conn_id)}"
                )
        members = set(self._pool.conn_ids)
        silent = [offer for offer in offers if not offer.answered and offer.conn_id in members]
        # Any two that have launched the job would have told a cluster in common, which tells the second of the first.
        if not self._store.is_precise and 2 * len(silent) >= len(members):
            told = "; ".join(f"{offer.conn_id} ({offer.why_not})" for offer in silent)
            raise PlacementUnknownError(
                f"whether job {self._job.job_id} was launched before is remembered nowhere, and too few clusters of the"
                f" pool answer to be sure that it was not: of {len(members)}, more than half have to, and these do not:"
                f" {told}. Nothing is launched; try again when they are back, or without them in the pool"
            )

    def _until(self, conn_id: str) -> str:
        moment = self._known.gone_at(conn_id)
        if moment is None:
            return "until that cluster has said that it has nothing of it"
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
        return f"until that cluster answers or, at {until} UTC, nothing of it can run there any more"

    # -- choosing and launching

    def _choose(self, offers: Sequence[Offer]) -> Offer:
        own = [
            with_refusal(offer, self._refused.get(offer.conn_id))
            for offer in offers
            if offer.conn_id in self._pool.conn_ids
        ]
        try:
            choice = self._choose_among(own)
        except GpuClusterConnectionError:
            raise
        except GpuClusterError as error:
            if not self._refused or any(offer.answered and offer.fits for offer in own):
                # It says more than that they have refused it.
                raise
            raise refusal_of(self._refused.values(), own) from error
        self._log.info(f"GPU job goes to {choice.offer.conn_id}\n{table_of(choice)}")
        return choice.offer

    def _launch_on(
        self, chosen: Offer, offers: Sequence[Offer], *, adopt: bool = False, origin: str | None = None
    ) -> _Result | None:
        """
        Claim a cluster, make sure that the job is nowhere else, and launch it.

        :param adopt: whether an attempt of an earlier placement is there that is to belong to this one.
        :param origin: the cluster where the job waits and is to be taken back, if it moves.
        """
        record = self._noted_choice(chosen, offers)
        if origin is None:
            clock = self._claimed(record, chosen, offers, adopt=adopt)
        else:
            clock = self._taken_over(record, chosen, offers, origin)
        self._settled(clock is not None)
        if clock is None:
            return None
        if not adopt and not self._carried(chosen, offers):
            return None
        self._check()
        # Carrying may have taken long.
        record = replace(record, stage=SENT, start_by=self._start_by(chosen))
        self._save(record)
        self._known.unsent.discard(record.rank)
        return self._sent(record, _dated(self._placement(chosen.conn_id, record.epoch, offers), record, clock))

    def _sent(self, record: PlacementRecord, placement: Placement) -> _Result | None:
        try:
            return self._launched(record, placement)
        except (PlacementOutrankedError, PlacementExpiredError):
            # Another try was quicker, or sending its files took too long.
            return None
        except GpuClusterConnectionError:
            raise
        except GpuClusterError as error:
            is_taken_back = self._take_back(record, error)
            if is_of_the_job(error):
                raise
            if is_taken_back:
                self._refuse(str(record.conn_id), error)
            return None

    def _refuse(self, conn_id: str, error: GpuClusterError) -> None:
        """Try another cluster from now on."""
        self._refused[conn_id] = error
        self._log.warning(f"GPU job does not go to {conn_id} after all; the next best is tried", error=str(error))

    def _start_by(self, chosen: Offer) -> float | None:
        ahead_s = self._ahead_s(chosen)
        return None if ahead_s is None else time.time() + ahead_s

    def _ahead_s(self, chosen: Offer) -> float | None:
        """Return how far ahead the first date is; while the job's files are being sent, nobody renews it."""
        failover_after_s = self._job.failover_after_s
        return None if failover_after_s is None else failover_after_s + _LONGER_SENDING * sending_s(chosen)

    def _noted_choice(self, chosen: Offer, offers: Sequence[Offer]) -> PlacementRecord:
        """Save the choice before any cluster is told of it."""
        record = PlacementRecord(
            self._job.job_id,
            self._known.next_epoch(),
            self._key,
            chosen.conn_id,
            tuple(offer.conn_id for offer in offers),
            CHOSEN,
            self._start_by(chosen),
            self._gone_after_s(chosen, self._job.spec.get("orphan_timeout_s")),
            self._known.elsewhere(chosen.conn_id),
        )
        self._known.unsent.add(record.rank)
        self._save(record)
        return record

    def _gone_after_s(self, chosen: Offer, orphan_timeout_s: float | None) -> float | None:
        """Return for how long after its date a job may run there if nobody renews its placement."""
        ahead_s = self._ahead_s(chosen)
        if ahead_s is None:
            return None
        settings = self._members(chosen.conn_id).settings
        if orphan_timeout_s is None:
            orphan_timeout_s = settings.orphan_timeout_s
        graces = (self._job.spec.get("grace_s"), settings.grace_s, protocol.GRACE_S)
        grace_s = next(grace for grace in graces if grace is not None)
        return gone_after_s(ahead_s, orphan_timeout_s, grace_s)

    def _placement(self, conn_id: str, epoch: int, offers: Sequence[Offer]) -> Placement:
        placement: Placement = {
            "epoch": epoch,
            "key": self._key,
            "conn_id": conn_id,
            "members": [offer.conn_id for offer in offers],
        }
        if self._job.failover_after_s is not None:
            placement["renewed_only"] = True
        return placement

    def _claimed(self, record: PlacementRecord, chosen: Offer, offers: Sequence[Offer], *, adopt: bool) -> float | None:
        """
        Claim the chosen cluster and fence all others, in one round.

        :return: if the job may be launched, by how much the clock there is ahead; None if all has to begin anew.
        """
        fence = self._placement(chosen.conn_id, record.epoch, offers)
        claim = _dated(fence, record, chosen.clock_ahead_s)
        others = [offer.conn_id for offer in offers if offer.answered and offer.conn_id != chosen.conn_id]
        replies: Outcomes[PlaceReply] = {}
        if adopt:
            # It would run on under this placement even if another choice turns out to be the higher one.
            replies = self._tell(others, lambda conn_id: (fence, words.FENCE))
            if not self._is_nowhere_else(replies, record, offers):
                return None
            others = []
        replies |= self._tell(
            [chosen.conn_id, *others],
            lambda conn_id: (claim, words.CLAIM) if conn_id == chosen.conn_id else (fence, words.FENCE),
            if_free=not adopt and chosen.start_known_by == FREE_NOW and self._taken < _MOST_TAKEN,
            enough=chosen.conn_id,
        )
        reply = replies.pop(chosen.conn_id)
        is_nowhere_else = self._is_nowhere_else(replies, record, offers)
        if isinstance(reply, GpuClusterError):
            # Nothing was sent that could launch it.
            if is_of_the_job(reply):
                raise reply
            self._refuse(chosen.conn_id, reply)
            return None
        if reply["outcome"] == words.TAKEN:
            self._taken += 1
            self._log.info(f"The GPUs that were free on {chosen.conn_id} have been taken; choosing again")
        has_taken_it = reply["outcome"] == (words.LAUNCHED if adopt else words.CLAIMED)
        return reply["now"] - time.time() if has_taken_it and is_nowhere_else else None

    def _taken_over(self, record: PlacementRecord, chosen: Offer, offers: Sequence[Offer], origin: str) -> float | None:
        """
        Claim the cluster to which a job goes, and only then take it back where it waits, and fence the others.

        :return: as of :meth:`_claimed`; None also if the job stays.
        """
        placement = self._placement(chosen.conn_id, record.epoch, offers)
        claim = _dated(placement, record, chosen.clock_ahead_s)
        is_free = chosen.start_known_by == FREE_NOW
        claimed = self._tell([chosen.conn_id], lambda _: (claim, words.CLAIM), if_free=is_free, enough=chosen.conn_id)
        reply = claimed[chosen.conn_id]
        if isinstance(reply, GpuClusterError) or reply["outcome"] != words.CLAIMED:
            why = str(reply) if isinstance(reply, GpuClusterError) else f"the answer was {reply['outcome']!r}"
            self._log.info(f"GPU job stays on {origin}: {chosen.conn_id} does not take it now ({why})")
            return None
        clock = reply["now"] - time.time()
        replies = self._tell(
            [offer.conn_id for offer in offers if offer.answered and offer.conn_id != chosen.conn_id],
            lambda conn_id: (placement, words.WITHDRAW if conn_id == origin else words.FENCE),
            enough=origin,
        )
        if not self._is_nowhere_else(replies, record, offers):
            self._log.info(f"GPU job stays on {origin}: it is starting there, or was placed by another try")
            return None
        self._moves += 1
        return clock

    def _is_nowhere_else(self, replies: Outcomes[PlaceReply], record: PlacementRecord, offers: Sequence[Offer]) -> bool:
        """Return whether all others have said that they have nothing, and will launch nothing of an earlier choice."""
        silent = {conn_id: str(reply) for conn_id, reply in replies.items() if isinstance(reply, GpuClusterError)}
        said = [reply for reply in replies.values() if not isinstance(reply, GpuClusterError)]
        if any(reply["outcome"] not in _NOTHING_THERE or _has_succeeded(reply) for reply in said):
            return False
        # Others may have told of a choice since, and those that have answered before may be silent by now.
        now = [
            replace(offer, answered=False, why_not=silent[offer.conn_id]) if offer.conn_id in silent else offer
            for offer in offers
        ]
        self._refuse_if_it_may_be_elsewhere(now, with_marks=True)
        return True

    def _carried(self, chosen: Offer, offers: Sequence[Offer]) -> bool:
        """Bring along what the job has saved where it was before; return whether it can be launched here then."""
        origin = last_of(offers)
        if self._carry is None or origin is None or origin == chosen.conn_id:
            return True
        if state_of(chosen) == protocol.SUCCEEDED:
            # It is not launched anew, and keeps the outputs of its own run.
            return True
        try:
            self._carry(origin, chosen.conn_id)
        except GpuClusterError as error:
            # Nothing was launched yet, and on the cluster where it was before the job has everything.
            self._refuse(chosen.conn_id, error)
            return False
        return True

    def _tell(
        self,
        conn_ids: Sequence[str],
        what: Callable[[str], tuple[Placement, str]],
        *,
        if_free: bool = False,
        enough: str | None = None,
    ) -> Outcomes[PlaceReply]:
        """Tell clusters of a placement, all at the same time, and learn from what they answer."""
        told = {conn_id: what(conn_id) for conn_id in conn_ids}
        replies = tell(told, self._job.job_id, self._members, self._job.spec, self._job.by, if_free, enough)
        for conn_id, reply in replies.items():
            if not isinstance(reply, GpuClusterError):
                self._known.note_told(reply)
                if reply["outcome"] in _NOTHING_THERE:
                    self._known.note_clear(conn_id, order(told[conn_id][0]))
        return replies

    def _launched(self, record: PlacementRecord, placement: Placement | None) -> _Result:
        assert record.conn_id is not None
        try:
            submission = self._launch(self._members(record.conn_id), placement)
        except GpuClusterConnectionError as error:
            raise PlacementUnknownError(
                f"job {self._job.job_id} may have been launched on {record.conn_id}, which does not answer: {error}"
            ) from error
        launched = replace(record, stage=LAUNCHED)
        try:
            return submission, self._save(launched)
        except GpuClusterError as error:
            # The job is there, and the next try looks for it where it was sent.
            self._log.warning("Where the GPU job is could not be noted now", error=str(error))
            return submission, launched

    def _take_back(self, record: PlacementRecord, why: GpuClusterError) -> bool:
        """
        Make sure that a launch that was refused has launched nothing, and will launch nothing.

        :return: whether that is so; otherwise something of it is there.
        :raises PlacementUnknownError: the cluster does not say.
        """
        assert record.conn_id is not None
        epoch = self._known.next_epoch()
        placement: Placement = {"epoch": epoch, "key": self._key, "conn_id": record.conn_id}
        told = self._tell([record.conn_id], lambda conn_id: (placement, words.WITHDRAW), enough=record.conn_id)
        reply = told[record.conn_id]
        if isinstance(reply, GpuClusterError):
            raise PlacementUnknownError(
                f"{record.conn_id} has refused job {self._job.job_id} ({why}), and does not say whether something of it"
                f" is there all the same: {reply}"
            ) from why
        if reply["outcome"] not in _NOTHING_THERE:
            return False
        self._save(replace(record, epoch=epoch, stage=ENDED))
        return True

    def _save(self, record: PlacementRecord) -> PlacementRecord:
        record = replace(self._known.with_what_is_clear(record), moves=self._moves)
        self._store.save(record)
        self._known.read(record)
        return record


def _has_succeeded(reply: PlaceReply) -> bool:
    return "status" in reply and reply["status"]["state"] == protocol.SUCCEEDED


def _dated(placement: Placement, record: PlacementRecord, ahead_s: float) -> Placement:
    """Return a placement with the date of a record, for a cluster whose clock is ahead by so much."""
    return placement if record.start_by is None else {**placement, "start_by": record.start_by + ahead_s}
