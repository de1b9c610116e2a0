"""The job of a pool that a trigger launches or waits for: what its trigger is told of it, and how it sees to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError, PlacementUnknownError
from airflow_provider_gpu_cluster.logs.job_log import tell_submission
from airflow_provider_gpu_cluster.pools.answers import SharedAnswers
from airflow_provider_gpu_cluster.pools.cancelled import check_cancelled
from airflow_provider_gpu_cluster.pools.keeping import PLACE_EVERY_S, Keeper, WorkerNeeded
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.moving import Moves
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord
from airflow_provider_gpu_cluster.pools.placing import JobToPlace, Placing
from airflow_provider_gpu_cluster.pools.pool import SOONEST, Pool
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY
from airflow_provider_gpu_cluster.triggers.place_keeping import PlaceKeeping, in_placing_thread, in_thread
from airflow_provider_gpu_cluster.triggers.placement_store import TriggerStore
from airflow_provider_gpu_cluster.triggers.watched_member import WatchedMember
from airflow_provider_gpu_cluster.triggers.watchers import watcher_of

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.jobs.handle import JobHandle
    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log


class PoolArgument(TypedDict):
    """
    What a trigger is told of the pool of its job, as plain JSON values.

    :param members: connection, weight and price of each cluster.
    :param policy: how one is chosen, one of the words; a function stays on the worker.
    :param key: the try of the task.
    :param spec: what the job needs.
    :param failover_after_s: see :class:`.PlacementOptions`.
    :param move_gain_s: likewise.
    :param launch: the request to launch it elsewhere; None if only a worker can do that.
    :param record: what the worker knew of where it is.
    :param is_precise: whether that was all that there was to know.
    :param parts: of an array on several clusters, by the job id of each part: what differs from the above.
    """

    members: list[tuple[str, float, float | None]]
    policy: str
    key: str
    spec: Spec
    failover_after_s: float | None
    move_gain_s: float | None
    launch: SubmitRequest | None
    record: dict[str, Any] | None
    is_precise: bool
    parts: NotRequired[dict[str, dict[str, Any]]]


_answers = SharedAnswers(lambda conn_id, request: watcher_of(conn_id).call("appraise", request))
_BY = "Airflow, for a task that waits"


class PoolJob:
    """
    One job of a pool, for one trigger.

    :param argument: what the trigger was told.
    :param ti: the task instance; None in ``dag.test()``.
    :param log: the task's log.
    :param unreachable_timeout_s: how long to wait for clusters that may have the job, in seconds.
    :param key: of the record of where it is.
    """

    def __init__(
        self,
        job_id: str,
        argument: PoolArgument,
        ti: Any,
        *,
        log: Log,
        unreachable_timeout_s: float,
        key: str = PLACEMENT_KEY,
    ) -> None:
        self._patience_s = unreachable_timeout_s
        self._job_id = job_id
        self._argument = argument
        given = argument["record"]
        known = None if given is None else PlacementRecord.from_json(given)
        self._store = TriggerStore(ti, known, is_precise=argument["is_precise"], key=key)
        self._log = log
        members = tuple(Member(*member) for member in argument["members"])
        self._pool = Pool(members, argument["policy"])
        self._members = Members(WatchedMember)
        self._keeper: Keeper | None = None
        self._offered: dict[str, Offer] = {}
        self._is_stopped = False

    async def begin(self) -> Submission:
        """Find the job, or choose a cluster and launch it there."""
        began = time.monotonic()
        submission, record = await self._until_placed()
        self._keeper = self._make_keeper(record)
        cluster = watcher_of(submission.handle.gpu_cluster_conn_id).name
        tell_submission(submission, self._log, cluster=cluster, duration_s=time.monotonic() - began)
        return submission

    async def _until_placed(self) -> tuple[Submission, PlacementRecord]:
        told, first_failed_at = "", None
        while True:
            try:
                return await in_placing_thread(self._place)
            except GpuClusterConnectionError as error:
                now = time.monotonic()
                # Counted from here, as the turn of a job among many may come late.
                first_failed_at = now if first_failed_at is None else first_failed_at
                # Where one that may have the job is out of reach, it will be known later what can be done.
                patience_s = self._patience_s if isinstance(error, PlacementUnknownError) else RETRY_FOR_S
                if self._is_stopped or now > first_failed_at + patience_s:
                    raise
                if str(error) != told:
                    told = str(error)
                    self._log.warning("GPU job is not placed yet, trying again", job_id=self._job_id, error=told)
            await asyncio.sleep(PLACE_EVERY_S)

    async def keeping(self, handle: JobHandle) -> PlaceKeeping:
        """Return what keeps the job's place on the cluster where it is now."""
        if self._keeper is None:
            record = await in_thread(self._known_record)
            self._keeper = self._make_keeper(record, here=handle.gpu_cluster_conn_id)
        return PlaceKeeping(self._keeper, self._members(handle.gpu_cluster_conn_id), handle)

    async def cancelled_at(self) -> list[tuple[str, str]]:
        """
        Return the clusters on which something of the job may wait or run, or may be on its way: the connection of each,
        and the id under which it has it.
        """
        stored = await self._known()
        if self._keeper is not None:
            return [(conn_id, self._job_id) for conn_id in self._keeper.may_have_it]
        known = () if stored is None else (*stored.members, *stored.elsewhere)
        return [(conn_id, self._job_id) for conn_id in dict.fromkeys((*self._pool.conn_ids, *known))]

    def part(self, job_id: str) -> PoolJob:
        """Return this, of which there is only one."""
        return self

    async def check_cancelled(self, answers: Sequence[JobStatus], failed: Mapping[str, Exception]) -> None:
        """
        Return if the clusters that have not answered can have nothing of the job.

        :param answers: what the others have said of it, after they were told to cancel it.
        :param failed: why the rest have not answered, by connection.
        :raises GpuClusterConnectionError: one of them may have it.
        """
        own = self._argument["spec"].get("orphan_timeout_s")
        check_cancelled(
            await self._known(),
            self._job_id,
            answers,
            failed,
            now=time.time(),
            orphan_timeouts_s={
                conn_id: self._members(conn_id).settings.orphan_timeout_s if own is None else own for conn_id in failed
            },
        )

    async def _known(self) -> PlacementRecord | None:
        stored = await in_thread(self._store.load)
        return stored if stored is not None and stored.job_id == self._job_id else None

    async def placement(self) -> dict[str, Any] | None:
        """Return where the job is, if that is known, as plain JSON: with what was begun and is left to a worker."""
        record = await in_thread(self._store.load)
        return None if record is None else record.to_json()

    def stop(self) -> None:
        """Launch nothing any more."""
        self._is_stopped = True

    def _known_record(self) -> PlacementRecord:
        record = self._store.load()
        assert record is not None
        return record

    def _make_keeper(self, record: PlacementRecord, *, here: str | None = None) -> Keeper:
        return Keeper(
            record,
            self._store,
            open_member=self._members,
            place_again=self._place,
            moves=self._moves(),
            failover_after_s=self._argument["failover_after_s"],
            by=_BY,
            log=self._log,
            here=here,
        )

    def _moves(self) -> Moves | None:
        """Return what moves the job while it waits; None if it is never moved."""
        move_gain_s = self._argument["move_gain_s"]
        if move_gain_s is None:
            return None
        return Moves(
            offers=lambda: self._offers(self._pool),
            placing=self._placing,
            # A function is on the worker, which then decides.
            policy=self._pool.policy or SOONEST,
            move_gain_s=move_gain_s,
            log=self._log,
            bytes_to_carry=None,
            is_staged=self._argument["launch"] is None or self._argument["launch"]["inputs"] is None,
        )

    def _place(self) -> tuple[Submission, PlacementRecord]:
        return self._placing().begin()

    def _placing(self) -> Placing[WatchedMember]:
        if self._argument["launch"] is None:
            raise WorkerNeeded
        job = JobToPlace(
            self._job_id,
            self._argument["key"],
            self._argument["spec"],
            failover_after_s=self._argument["failover_after_s"],
            by=_BY,
        )
        return Placing(
            self._pool,
            job,
            store=self._store,
            members=self._members,
            offers=self._offers,
            launch=self._launch,
            log=self._log,
            carry=self._carry,
            check=self._check,
            choose_among=lambda offers: _answers.choose(self._to_appraise(), offers, self._pool.policy),
            settled=self._settled,
        )

    def _to_appraise(self) -> JobToAppraise:
        launch = self._argument["launch"]
        inputs = [] if launch is None else launch["inputs"]
        return {"job_id": self._job_id, "spec": self._argument["spec"], "inputs": inputs}

    def _offers(self, pool: Pool) -> list[Offer]:
        (offers,) = _answers.offers_of(pool, [self._to_appraise()])
        self._offered = {offer.conn_id: offer for offer in offers}
        return offers

    def _settled(self, is_claimed: bool) -> None:
        (_answers.kept if is_claimed else _answers.dropped)(self._job_id)

    def _carry(self, origin: str, target: str) -> None:
        """Leave it to a worker to bring something along, if there may be something."""
        placed = self._offered[origin].placed if origin in self._offered else None
        status = (placed or {}).get("status")
        has_begun = status is None or status.get("started_at") or (status.get("attempt") or 1) > 1
        if has_begun or self._to_appraise()["inputs"] is None:
            raise WorkerNeeded

    def _launch(self, member: WatchedMember, placement: Placement | None) -> Submission:
        request = self._argument["launch"]
        assert request is not None
        self._check()
        return member.launch(request if placement is None else {**request, "placement": placement})

    def _check(self) -> None:
        if self._is_stopped:
            raise GpuClusterError(f"job {self._job_id} is launched nowhere any more, as a user has ended its task")
