"""Finds the cluster of a pool that has a job, or chooses one and launches it there: once, across all of them."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    InvalidJobError,
    JobConflictError,
    PlacementExpiredError,
    PlacementOutrankedError,
    PlacementUnknownError,
    SourceError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import placement as words
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import FREE_NOW
from airflow_provider_gpu_cluster.pools.choice import choose
from airflow_provider_gpu_cluster.pools.holding import gone_after_s, start_by_there
from airflow_provider_gpu_cluster.pools.members import MemberClient, Members
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.placement_record import (
    CHOSEN,
    ENDED,
    LAUNCHED,
    SENT,
    PlacementRecord,
    PlacementStore,
)
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.side_by_side import Outcomes, side_by_side
from airflow_provider_gpu_cluster.pools.table import table_of
from airflow_provider_gpu_cluster.pools.whereabouts import Rank, Whereabouts

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import (
        Placed,
        Placement,
        PlaceReply,
        Renewal,
        RenewReply,
    )
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log

# How long one that is silent may hold up a round, in seconds.
WAIT_S = 4.0
# Others choose at the same time, or take what was free: so often that is no reason to give up.
_MOST_ROUNDS = 40
# So often a job is sent to GPUs that are free now, and then also to a queue.
_MOST_TAKEN = 4
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.3
_ACTIVE = (protocol.QUEUED, protocol.RUNNING, protocol.UNKNOWN)
# Faults of the job, which no other cluster would make good.
_OF_THE_JOB = (InvalidJobError, SourceError, JobConflictError)


class PoolMember(MemberClient, Protocol):
    """What placing a job asks of a cluster; :class:`.Cluster` is one."""

    settings: ClusterSettings

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
        """Tell it of a placement."""
        ...

    def renew(self, jobs: Sequence[Renewal]) -> RenewReply:
        """Let placements go on."""
        ...


_Member = TypeVar("_Member", bound=PoolMember)


@dataclass(frozen=True)
class JobToPlace:
    """
    A job, and what its user wants of the pool.

    :param job_id: the job.
    :param key: the try that asks for it, see :class:`.JobIdentity`.
    :param spec: what it needs.
    :param failover_after_s: after how long without contact it may be launched elsewhere, in seconds; None for never.
    :param is_awaited: whether somebody waits for it and renews its placement.
    :param by: who asks, in words.
    """

    job_id: str
    key: str
    spec: Spec
    failover_after_s: float | None = None
    is_awaited: bool = False
    by: str = ""


class Placing(Generic[_Member]):
    """
    Places one job in a pool, for one try of a task; use it from one thread.

    :param store: what the task remembers.
    :param members: the open clusters.
    :param offers: asks the clusters of a pool for their offers, in the order of its members.
    :param launch: sends the request to launch the job; with no placement it only joins what is there.
    :param log: the task's log.
    :param carry: brings what the job has saved from one cluster to another, by their connections.
    :param check: raises an error when the task is to stop.
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
        carry: Callable[[str, str], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._job = job
        self._store = store
        self._members = members
        self._offers = offers
        self._launch = launch
        self._log = log
        self._carry = carry
        self._check = check
        self._known = Whereabouts(job.job_id, job.key)
        self._refused: dict[str, GpuClusterError] = {}
        self._taken = 0

    def begin(self) -> tuple[Submission, PlacementRecord]:
        """
        Find the job on the cluster that has it, or choose one and launch it there.

        :raises PlacementUnknownError: a cluster may have it and cannot be asked now.
        :raises GpuClusterError: no cluster can launch it.
        """
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

    def _once(self) -> tuple[Submission, PlacementRecord] | None:
        """Look where the job is, and launch it if it is nowhere; return None if that has to begin anew."""
        self._known.read(self._store.load())
        offers = self._look()
        self._check()
        holder = _holder(offers)
        if holder is not None:
            return self._join(holder, offers)
        self._refuse_if_it_may_be_elsewhere(offers)
        return self._launch_on(self._choose(offers), offers)

    # -- finding it

    def _look(self) -> list[Offer]:
        """Ask all clusters that may have the job."""
        asked: set[str] = set()
        offers: list[Offer] = []
        while not (everybody := set(self._pool.conn_ids) | self._known.named()) <= asked:
            strangers = tuple(Member(conn_id) for conn_id in sorted(everybody - set(self._pool.conn_ids)))
            offers = self._offers(replace(self._pool, members=(*self._pool.members, *strangers)))
            asked = everybody
            for offer in offers:
                if offer.placed is not None:
                    self._learn(offer.placed)
        return offers

    def _learn(self, told: Placed | PlaceReply) -> None:
        if "placement" in told:
            self._known.note_told([told["placement"]])
        self._known.note_told(told.get("chosen", ()))

    def _join(self, holder: Offer, offers: Sequence[Offer]) -> tuple[Submission, PlacementRecord] | None:
        """Take the job where it is."""
        assert holder.placed is not None
        placement = holder.placed.get("placement")
        self._end_elsewhere(holder, offers)
        record = self._record_of_joined(holder, offers)
        self._save(record)
        with contextlib.suppress(PlacementOutrankedError, PlacementExpiredError):
            return self._launched(holder, record, placement)
        return None

    def _record_of_joined(self, holder: Offer, offers: Sequence[Offer]) -> PlacementRecord:
        assert holder.placed is not None
        placement, status = holder.placed.get("placement"), holder.placed.get("status")
        # The attempt belongs to the placement that its cluster knows, whoever has made that.
        epoch, key = (placement["epoch"], placement["key"]) if placement else (0, self._job.key)
        date = placement.get("start_by") if placement else None
        start_by = None if date is None else date - holder.clock_ahead_s
        known = self._known.record
        if start_by is not None and known is not None and self._is_of(known, holder.conn_id, (epoch, key)):
            start_by = None if known.start_by is None else max(known.start_by, start_by)
        orphan_timeout_s = status.get("orphan_timeout_s") if status else None
        gone_after = None
        if placement and placement.get("renewed_only"):
            gone_after = self._gone_after_s(holder.conn_id, orphan_timeout_s)
        return PlacementRecord(
            self._job.job_id,
            epoch,
            key,
            holder.conn_id,
            tuple(offer.conn_id for offer in offers),
            SENT,
            start_by,
            gone_after,
            self._known.elsewhere(holder.conn_id),
        )

    @staticmethod
    def _is_of(record: PlacementRecord, conn_id: str, rank: Rank) -> bool:
        return record.conn_id == conn_id and (record.epoch, record.key) == rank

    def _end_elsewhere(self, holder: Offer, offers: Sequence[Offer]) -> None:
        """
        Tell the others where the job is, where they know otherwise: after a failover its first cluster may be back, and
        a choice of which nothing came may still have GPUs promised.
        """
        assert holder.placed is not None
        placement = holder.placed.get("placement")
        if placement is None:
            return
        left = self._known.elsewhere(holder.conn_id)
        wrong = [
            offer.conn_id
            for offer in offers
            if offer.conn_id != holder.conn_id
            and offer.answered
            and (offer.conn_id in left or _is_active(offer) or _knows_otherwise(offer, holder.conn_id))
        ]
        if not wrong:
            return
        # What they know may be higher than the placement that the job runs under.
        now: Placement = {
            **self._placement(holder.conn_id, self._known.highest_epoch + 1, offers),
        }
        self._known.highest_epoch = now["epoch"]
        replies = self._tell(wrong, lambda conn_id: (now, words.END))
        for conn_id, reply in replies.items():
            if not isinstance(reply, GpuClusterError) and reply["outcome"] in (words.FENCED, words.ENDED):
                self._known.note_clear(conn_id, now["epoch"])

    def _refuse_if_it_may_be_elsewhere(self, offers: Sequence[Offer], *, marks: bool = False) -> None:
        """
        Go on only if no cluster that is silent can have the job.

        :param marks: whether to look at the marks in the store as well.
        :raises PlacementUnknownError: one may.
        """
        now = time.time()
        for offer in offers:
            if offer.answered:
                continue
            mark = self._store.mark_of(offer.conn_id) if marks else None
            why = self._known.why_it_may_be_at(offer.conn_id, now=now, mark=mark)
            if why is not None:
                raise PlacementUnknownError(
                    f"job {self._job.job_id} may be on {offer.conn_id}: {why}, and it does not answer "
                    f"({offer.why_not}). So the job is launched nowhere else, {self._until(offer.conn_id)}"
                )
        self._refuse_if_too_few(offer.conn_id for offer in offers if offer.answered)

    def _refuse_if_too_few(self, answered: Collection[str] | Any) -> None:
        """
        Without a memory of what was sent, go on only with more than half of the clusters.

        Any two that have launched the job have then told a cluster in common, which tells the second of the first.
        """
        members = set(self._pool.conn_ids)
        there = members & set(answered)
        if self._store.is_precise or 2 * len(there) > len(members):
            return
        silent = ", ".join(sorted(members - there))
        raise PlacementUnknownError(
            f"whether job {self._job.job_id} was launched before is remembered nowhere, and too few clusters of the "
            f"pool answer to be sure that it was not: {silent} {'does' if len(members - there) == 1 else 'do'} not. "
            "Nothing is launched; try again when they are back"
        )

    def _until(self, conn_id: str) -> str:
        moment = self._known.gone_at(conn_id)
        if moment is None:
            return "until that cluster has said that it has nothing of it"
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
        return f"until that cluster answers or, at {until} UTC, nothing of it can run there any more"

    # -- choosing and launching

    def _choose(self, offers: Sequence[Offer]) -> Offer:
        own = [self._without_refusal(offer) for offer in offers if offer.conn_id in self._pool.conn_ids]
        try:
            choice = choose(own, self._pool.policy)
        except GpuClusterError:
            if self._refused:
                # What those said that seemed to fit is more than that none does.
                raise list(self._refused.values())[-1] from None
            raise
        self._log.info(f"GPU job goes to {choice.offer.conn_id}: {choice.why}\n{table_of(choice)}")
        return choice.offer

    def _without_refusal(self, offer: Offer) -> Offer:
        refusal = self._refused.get(offer.conn_id)
        return offer if refusal is None else replace(offer, fits=False, why_not=str(refusal))

    def _launch_on(self, chosen: Offer, offers: Sequence[Offer]) -> tuple[Submission, PlacementRecord] | None:
        record = self._noted_choice(chosen, offers)
        self._refuse_if_it_may_be_elsewhere(offers, marks=True)
        self._check()
        claim = self._claimed(record, chosen, offers)
        if claim is None:
            return None
        came_at = time.time()
        origin = _last_of(offers)
        if self._carry is not None and origin not in (None, chosen.conn_id):
            assert origin is not None
            try:
                self._carry(origin, chosen.conn_id)
            except GpuClusterConnectionError:
                raise
            except GpuClusterError as error:
                return self._refuse(chosen.conn_id, error)
        self._check()
        placement = self._placement(chosen.conn_id, record.epoch, offers)
        start_by = start_by_there(record.start_by, there_at_reply=claim["now"], own_at_reply=came_at)
        if start_by is not None:
            placement["start_by"] = start_by
        record = self._known.cleared(replace(record, stage=SENT))
        self._save(record)
        self._known.unsent.discard((record.epoch, record.key))
        return self._try_launch(chosen, record, placement)

    def _try_launch(
        self, chosen: Offer, record: PlacementRecord, placement: Placement
    ) -> tuple[Submission, PlacementRecord] | None:
        try:
            return self._launched(chosen, record, placement)
        except (PlacementOutrankedError, PlacementExpiredError):
            # Another try was quicker, or sending its files took too long.
            return None
        except GpuClusterConnectionError:
            raise
        except _OF_THE_JOB as error:
            self._take_back(record, error)
            raise
        except GpuClusterError as error:
            if self._take_back(record, error):
                return self._refuse(chosen.conn_id, error)
            return None

    def _refuse(self, conn_id: str, error: GpuClusterError) -> None:
        """Try another cluster from now on."""
        self._refused[conn_id] = error
        self._log.warning(f"{conn_id} does not take the GPU job after all; the next best is tried", error=str(error))

    def _noted_choice(self, chosen: Offer, offers: Sequence[Offer]) -> PlacementRecord:
        """Save the choice before any cluster is told of it."""
        job = self._job
        epoch = self._known.highest_epoch + 1
        date = None if job.failover_after_s is None else time.time() + job.failover_after_s
        orphan_timeout_s = job.spec.get("orphan_timeout_s")
        record = PlacementRecord(
            job.job_id,
            epoch,
            job.key,
            chosen.conn_id,
            tuple(offer.conn_id for offer in offers),
            CHOSEN,
            date,
            self._gone_after_s(chosen.conn_id, orphan_timeout_s) if job.is_awaited else None,
            self._known.elsewhere(chosen.conn_id),
        )
        self._known.unsent.add((epoch, job.key))
        self._known.highest_epoch = epoch
        self._save(record)
        return record

    def _gone_after_s(self, conn_id: str, orphan_timeout_s: float | None) -> float | None:
        """Return for how long after its date a job may run there, if nobody renews its placement."""
        if self._job.failover_after_s is None:
            return None
        settings = self._members(conn_id).settings
        if orphan_timeout_s is None:
            orphan_timeout_s = settings.orphan_timeout_s
        grace_s = self._job.spec.get("grace_s")
        if grace_s is None:
            grace_s = protocol.GRACE_S if settings.grace_s is None else settings.grace_s
        return gone_after_s(self._job.failover_after_s, orphan_timeout_s, grace_s)

    def _placement(self, conn_id: str, epoch: int, offers: Sequence[Offer]) -> Placement:
        placement: Placement = {
            "epoch": epoch,
            "key": self._job.key,
            "conn_id": conn_id,
            "members": [offer.conn_id for offer in offers],
        }
        if self._job.failover_after_s is not None and self._job.is_awaited:
            placement["renewed_only"] = True
        return placement

    def _claimed(self, record: PlacementRecord, chosen: Offer, offers: Sequence[Offer]) -> PlaceReply | None:
        """
        Claim the chosen cluster and fence all others, in one round.

        :return: the reply to the claim, if the job may be launched; None if everything has to begin anew.
        """
        placement = self._placement(chosen.conn_id, record.epoch, offers)
        claim: Placement = {**placement}
        if record.start_by is not None:
            claim["start_by"] = record.start_by + chosen.clock_ahead_s
        there = [offer.conn_id for offer in offers if offer.answered]
        replies = self._tell(
            there,
            lambda conn_id: (claim, words.CLAIM) if conn_id == chosen.conn_id else (placement, words.FENCE),
            if_free=chosen.start_known_by == FREE_NOW and self._taken < _MOST_TAKEN,
            enough=chosen.conn_id,
        )
        own = replies.pop(chosen.conn_id)
        is_free_elsewhere = self._is_nowhere_else(replies, record, offers)
        if isinstance(own, GpuClusterConnectionError):
            # Nothing was sent that could launch it.
            self._log.warning(f"{chosen.conn_id} does not answer any more; choosing again", error=str(own))
            return None
        if isinstance(own, GpuClusterError):
            if isinstance(own, _OF_THE_JOB):
                raise own
            return self._refuse(chosen.conn_id, own)
        if own["outcome"] == words.TAKEN:
            self._taken += 1
            self._log.info(f"The GPUs that were free on {chosen.conn_id} have been taken; choosing again")
        return own if own["outcome"] == words.CLAIMED and is_free_elsewhere else None

    def _is_nowhere_else(self, replies: Outcomes[PlaceReply], record: PlacementRecord, offers: Sequence[Offer]) -> bool:
        """Return whether all others have said that they have nothing, and will launch nothing of an earlier choice."""
        is_nowhere, silent = True, []
        for conn_id, reply in replies.items():
            if isinstance(reply, GpuClusterError):
                silent.append((conn_id, reply))
            elif reply["outcome"] in (words.FENCED, words.ENDED):
                self._known.note_clear(conn_id, record.epoch)
                is_nowhere = is_nowhere and not _has_succeeded(reply)
            else:
                is_nowhere = False
        now = [
            replace(offer, answered=False, why_not=str(error))
            for offer in offers
            for conn_id, error in silent
            if offer.conn_id == conn_id
        ]
        if is_nowhere and now:
            # They have answered a moment ago, and had nothing then.
            unanswered = {offer.conn_id for offer in now}
            self._refuse_if_it_may_be_elsewhere(
                [*now, *(offer for offer in offers if offer.conn_id not in unanswered)], marks=True
            )
        return is_nowhere

    def _tell(
        self,
        conn_ids: Sequence[str],
        what: Callable[[str], tuple[Placement, str]],
        *,
        if_free: bool = False,
        enough: str | None = None,
    ) -> Outcomes[PlaceReply]:
        """Tell clusters of a placement, each at the same time, and learn from what they answer."""
        job = self._job

        def ask(conn_id: str, member: _Member) -> PlaceReply:
            placement, kind = what(conn_id)
            if kind == words.CLAIM:
                return member.place(job.job_id, placement, kind, spec=job.spec, if_free=if_free, by=job.by)
            return member.place(job.job_id, placement, kind, by=job.by)

        replies: Outcomes[PlaceReply] = side_by_side(
            conn_ids,
            ask,
            members=self._members,
            wait_s=WAIT_S,
            is_enough=lambda outcomes: enough is None or enough in outcomes,
        )
        for reply in replies.values():
            if not isinstance(reply, GpuClusterError):
                self._learn(reply)
        return replies

    def _launched(
        self, chosen: Offer, record: PlacementRecord, placement: Placement | None
    ) -> tuple[Submission, PlacementRecord]:
        member = self._members(chosen.conn_id)
        try:
            submission = self._launch(member, placement)
        except PlacementUnknownError:
            raise
        except GpuClusterConnectionError as error:
            raise PlacementUnknownError(
                f"job {self._job.job_id} may have been launched on {chosen.conn_id}, which does not answer: {error}"
            ) from error
        record = replace(record, stage=LAUNCHED)
        if record.start_by is not None and not self._job.is_awaited:
            record = self._without_date(member, record)
        self._save(record)
        return submission, record

    def _without_date(self, member: _Member, record: PlacementRecord) -> PlacementRecord:
        """Let a job start at any time, for which nobody will wait."""
        record = replace(record, start_by=None)
        self._save(record)
        member.renew([{"job_id": record.job_id, "epoch": record.epoch, "key": record.key, "start_by": None}])
        return record

    def _take_back(self, record: PlacementRecord, why: GpuClusterError) -> bool:
        """
        Make sure that a launch that was refused has launched nothing, and will launch nothing.

        :return: whether that is so; otherwise something of it is there.
        :raises PlacementUnknownError: the cluster does not say.
        """
        assert record.conn_id is not None
        epoch = self._known.highest_epoch + 1
        self._known.highest_epoch = epoch
        placement: Placement = {"epoch": epoch, "key": self._job.key, "conn_id": record.conn_id}
        (reply,) = self._tell([record.conn_id], lambda conn_id: (placement, words.WITHDRAW)).values()
        if isinstance(reply, GpuClusterError):
            raise PlacementUnknownError(
                f"{record.conn_id} has refused job {self._job.job_id} ({why}), and does not say whether something of it "
                f"is there all the same: {reply}"
            ) from why
        if reply["outcome"] not in (words.FENCED, words.ENDED):
            return False
        self._known.note_clear(record.conn_id, epoch)
        self._save(replace(record, epoch=epoch, stage=ENDED))
        return True

    def _save(self, record: PlacementRecord) -> None:
        record = self._known.cleared(record)
        self._store.save(record)
        self._known.read(record)


def _is_active(offer: Offer) -> bool:
    return _state(offer) in _ACTIVE


def _state(offer: Offer) -> str | None:
    status = offer.placed.get("status") if offer.placed is not None else None
    return None if status is None else status["state"]


def _has_succeeded(reply: PlaceReply) -> bool:
    return "status" in reply and reply["status"]["state"] == protocol.SUCCEEDED


def _rank(offer: Offer) -> Rank:
    placement = offer.placed.get("placement") if offer.placed is not None else None
    return (placement["epoch"], placement["key"]) if placement else (0, "")


def _knows_otherwise(offer: Offer, conn_id: str) -> bool:
    """Return whether a cluster was told that the job is on another than this one."""
    placement = offer.placed.get("placement") if offer.placed is not None else None
    return placement is not None and placement.get("conn_id") not in (None, conn_id)


def _holder(offers: Sequence[Offer]) -> Offer | None:
    """Return the cluster on which the job waits or runs, or has succeeded; of several, the one of the last choice."""
    have = [offer for offer in offers if _is_active(offer) or _state(offer) == protocol.SUCCEEDED]
    return max(have, key=_rank, default=None)


def _last_of(offers: Sequence[Offer]) -> str | None:
    """Return the cluster of the job's last attempt, all of which have ended."""
    had = [offer for offer in offers if offer.placed and offer.placed.get("status", {}).get("attempt")]
    return max(had, key=_rank).conn_id if had else None
