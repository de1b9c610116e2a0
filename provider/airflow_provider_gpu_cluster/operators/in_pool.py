"""The job of a task in a pool of clusters: launched, kept in its place while the task waits, and cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.connection.retry import RETRY_FOR_S
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    LaunchError,
    PlacementUnknownError,
    StagingError,
)
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.hooks.placement_stores import task_store
from airflow_provider_gpu_cluster.jobs.identity import requester_of
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.cancelled import check_cancelled
from airflow_provider_gpu_cluster.pools.holding import while_deferred
from airflow_provider_gpu_cluster.pools.keeping import PLACE_EVERY_S, Keeper, KeepsPlace
from airflow_provider_gpu_cluster.pools.launching import moves_of, placing_of
from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, ENDED, PlacementRecord
from airflow_provider_gpu_cluster.pools.side_by_side import side_by_side
from airflow_provider_gpu_cluster.pools.staged import Staged

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import SubmitRequest
    from airflow_provider_gpu_cluster.jobs.identity import JobIdentity
    from airflow_provider_gpu_cluster.jobs.request import JobRequest
    from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments, Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.moving import Moves
    from airflow_provider_gpu_cluster.pools.placement_options import PlacementOptions
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementStore
    from airflow_provider_gpu_cluster.pools.placing import Placing
    from airflow_provider_gpu_cluster.pools.pool import Pool
    from airflow_provider_gpu_cluster.sources import Source
    from airflow_provider_gpu_cluster.triggers.pool_job import PoolArgument

# A task that is stopped has five seconds for everything.
_CANCEL_WAIT_S = 4.0


class JobInPool:
    """
    The job of one try of a task.

    :param pool: the pool, with the policy that the task wants.
    :param hook: of the pool.
    :param context: of the running task.
    :param options: what the task wants of the pool besides.
    :param staged_at: the cluster on which a task before has staged the inputs, by its connection; None if none has.
    :param base_dir: folder that relative sources start from.
    :param is_awaited: whether the task waits for the job.
    :param check: raises an error when the task is to stop.
    :param store: what the task remembers of the job; by default what it remembers of its only one.
    """

    def __init__(
        self,
        pool: Pool,
        hook: GpuClusterHook,
        identity: JobIdentity,
        request: JobRequest,
        *,
        context: Mapping[str, Any],
        options: PlacementOptions,
        staged_at: str | None = None,
        base_dir: str,
        is_awaited: bool,
        check: Callable[[], None],
        log: Log,
        store: PlacementStore | None = None,
    ) -> None:
        self._pool = pool
        self._hook = hook
        self._identity = identity
        self._request = request
        self._options = options
        self._folder = Path(base_dir)
        self._check = check
        self._log = log
        self._store = task_store(context) if store is None else store
        self._staged_at = staged_at
        self._may_fail_over = staged_at is None or request.has_sources
        self._failover_after_s = options.failover_after_s if is_awaited and self._may_fail_over else None
        self._by = requester_of(context)
        self._keeper: Keeper | None = None
        self._is_after_trigger = False
        self._may_move_in_trigger = True

    @property
    def orphan_timeout_s(self) -> float | None:
        """After how long the job is ended about which nobody asks, on the cluster where that is shortest."""
        own: float | None = self._request.spec().orphan_timeout_s
        if own is not None:
            return own
        timeouts = (self._hook.member(conn_id).settings.orphan_timeout_s for conn_id in self._pool.conn_ids)
        return min((timeout for timeout in timeouts if timeout is not None), default=None)

    # -- launching, and waiting

    def launch(self, *, pause: Callable[[float], None], patience_s: float) -> Submission:
        """
        Find the job on the cluster that has it, or choose one and launch it there.

        :param pause: waits for that many seconds.
        :param patience_s: how long to wait for a cluster that may have the job and is out of reach, in seconds.
        """
        self._tell_if_failover_is_of_little_use()
        submission, record = self._until_placed(self._placing(), pause, patience_s)
        if self._is_after_trigger and submission.status.state is JobState.QUEUED:
            submission, record = self._moved(submission, record) or self._until_placed(
                self._placing(), pause, patience_s
            )
        self._keeper = self._make_keeper(record)
        return submission

    def _tell_if_failover_is_of_little_use(self) -> None:
        if self._options.failover_after_s is not None and not self._may_fail_over:
            self._log.warning(
                "failover_after is of no use to a job whose inputs are only where they were staged: give the task that "
                "launches it the code, data and models as well",
                job_id=self._identity.job_id,
            )
        if self._failover_after_s is not None and self.orphan_timeout_s is None:
            self._log.warning(
                "failover_after is of use only until the job is sent to a cluster: without an orphan_timeout it may "
                "run on there, out of reach, for any time",
                job_id=self._identity.job_id,
            )

    def _moved(self, submission: Submission, record: PlacementRecord) -> tuple[Submission, PlacementRecord] | None:
        """Move a job of which a trigger has found that it should; return where it is, or None if that is to be seen."""
        moves = self._moves(is_second_look=True)
        # The next trigger need not ask for a worker again.
        self._may_move_in_trigger = False
        if moves is None:
            return submission, record
        try:
            moved = moves.look(record, submission.status)
        except (GpuClusterConnectionError, LaunchError, StagingError) as error:
            self._log.warning(f"GPU job was not moved: {error}", job_id=record.job_id)
            return None
        if moved is None:
            return submission, record
        self._may_move_in_trigger = moved.record.conn_id != record.conn_id
        return moved.submission, moved.record

    def _until_placed(
        self, placing: Placing[Cluster], pause: Callable[[float], None], patience_s: float
    ) -> tuple[Submission, PlacementRecord]:
        began, told = time.monotonic(), ""
        while True:
            try:
                return placing.begin()
            except GpuClusterConnectionError as error:
                # If nothing of it may be anywhere, as long as a job of one cluster.
                tried_for_s = patience_s if isinstance(error, PlacementUnknownError) else RETRY_FOR_S
                if time.monotonic() > began + tried_for_s:
                    raise
                if str(error) != told:
                    told = str(error)
                    self._log.warning("GPU job is not placed yet, trying again", error=told)
            pause(PLACE_EVERY_S)

    def _moves(self, *, is_second_look: bool = False) -> Moves | None:
        """Return what moves the job while it waits; None if it is never moved."""
        if self._options.move_gain_s is None:
            return None
        return moves_of(
            self._pool,
            self._hook.members,
            job_id=self._identity.job_id,
            sources=self._sources(),
            arguments=self._arguments(),
            placing=self._placing,
            move_gain_s=self._options.move_gain_s,
            log=self._log,
            is_second_look=is_second_look,
        )

    def _arguments(self) -> LaunchArguments:
        return self._request.launch_arguments(self._identity, base_dir=self._folder, staged=False)

    def _sources(self) -> Sequence[Source] | Staged:
        def read() -> Sequence[Source]:
            return self._request.sources(base_dir=self._folder)

        if self._staged_at is None:
            return read()
        return Staged(self._staged_at, read if self._request.has_sources else None)

    def _placing(self) -> Placing[Cluster]:
        return self._placing_by()

    def _placing_by(self, **how: Any) -> Placing[Cluster]:
        return placing_of(
            self._pool,
            self._hook.members,
            job_id=self._identity.job_id,
            sources=self._sources(),
            arguments=self._arguments(),
            store=self._store,
            failover_after_s=self._failover_after_s,
            check=self._check,
            by=self._by,
            **{"log": self._log, **how},
        )

    @property
    def keeper(self) -> KeepsPlace | None:
        """What keeps the job's place while the task waits; None before it is launched, and for what stays there."""
        return self._keeper

    def close(self) -> None:
        """End what goes on beside the task."""

    def _make_keeper(self, record: PlacementRecord) -> Keeper:
        return Keeper(
            record,
            self._store,
            open_member=self._hook.members,
            place_again=lambda: self._placing().begin(),
            moves=self._moves(),
            failover_after_s=self._failover_after_s,
            by=self._by,
            log=self._log,
        )

    def member(self, conn_id: str) -> GpuClusterHook:
        """Return the hook of one cluster."""
        return self._hook.member(conn_id)

    def note_end(self) -> None:
        """Note that the job has ended where it was, so that a next try may go elsewhere although that is away then."""
        if self._keeper is not None:
            self._store.save(replace(self._keeper.record, stage=ENDED))

    # -- waiting in a trigger

    def argument(self, launch: SubmitRequest | None) -> PoolArgument | None:
        """
        Return what a trigger is told that waits for the job, or launches it; and note that it may do so.

        :param launch: the request with which a trigger can launch it; None if only a worker can.
        """
        words = self._pool.policy if isinstance(self._pool.policy, str) else None
        may_launch = launch is not None and self.may_be_launched_by_a_trigger()
        # What the trigger does after this, it cannot tell the store of the task.
        record = self._store.load()
        is_precise = self._store.is_precise
        if self._keeper is not None:
            record = self._keeper.record
        if record is not None and record.job_id != self._identity.job_id:
            record = None
        self._store.save(while_deferred(record or self._unplaced(), may_launch=may_launch))
        return {
            "members": [(one.conn_id, one.weight, one.price_per_gpu_hour) for one in self._pool.members],
            "policy": words or "",
            "key": self._identity.request_key,
            "spec": self._request.spec().to_json(),
            "failover_after_s": self._failover_after_s,
            "move_gain_s": self._options.move_gain_s if self._may_move_in_trigger else None,
            "launch": launch if may_launch else None,
            "record": None if record is None else record.to_json(),
            "is_precise": is_precise,
        }

    def may_be_launched_by_a_trigger(self) -> bool:
        """Return whether a trigger can choose a cluster: it can neither call a function of the DAG nor stage inputs."""
        return isinstance(self._pool.policy, str) and self._staged_at is None

    def _unplaced(self) -> PlacementRecord:
        members = tuple(self._pool.conn_ids)
        return PlacementRecord(self._identity.job_id, 0, self._identity.request_key, None, members, CHOSEN)

    def go_on(self, placement: Mapping[str, Any], *, has_ended: bool) -> None:
        """
        Take over from a trigger.

        :param placement: where it says that the job is.
        :param has_ended: whether it says that the job has ended there.
        """
        if "parts" in placement:
            # The array was on several clusters before its DAG was changed.
            return
        record = PlacementRecord.from_json(placement)
        self._store.save(replace(record, stage=ENDED) if has_ended else record)

    def do_what_the_trigger_could_not(self) -> None:
        """Move the job when it is launched or found again, if it is still to move."""
        self._is_after_trigger = True

    # -- cancelling

    def interrupt(self) -> None:
        """Make a call that waits for a cluster fail now. Safe in a signal handler."""
        self._hook.members.interrupt()

    @property
    def may_have_it(self) -> list[str]:
        """The clusters on which something of the job may wait or run, or may be on its way."""
        if self._keeper is not None:
            return self._keeper.may_have_it
        record = self._known_record()
        known = () if record is None else (*record.members, *record.elsewhere)
        return list(dict.fromkeys((*self._pool.conn_ids, *known)))

    def _known_record(self) -> PlacementRecord | None:
        """Return where the job is, as far as is known, without a call if this process has asked before."""
        record = self._store.latest or self._store.load()
        return record if record is not None and record.job_id == self._identity.job_id else None

    def cancel(self) -> None:
        """
        Cancel the job wherever it is or may be, over new connections; a launch that is on its way launches nothing.

        :raises GpuClusterConnectionError: a cluster that may have it has not answered.
        """
        job_id, key = self._identity.job_id, self._identity.request_key
        with GpuClusterHook(self._hook.gpu_cluster_conn_id) as anew:
            answers, failed = self._cancel([job_id], anew, at=self.may_have_it, by=self._by, request_keys={job_id: key})
        self.check_cancelled(answers, failed)
        self._tell_uncancelled(job_id, failed)

    def check_cancelled(
        self, answers: Mapping[str, Sequence[JobStatus]], failed: Mapping[str, GpuClusterError]
    ) -> None:
        """
        Return if the clusters that have not answered can have nothing of the job.

        :param answers: what each of the others has said, of this and of other jobs.
        :param failed: why the rest have not answered, by connection.
        :raises GpuClusterConnectionError: one of them may have it.
        """
        job_id = self._identity.job_id
        own: float | None = self._request.spec().orphan_timeout_s
        check_cancelled(
            self._known_record(),
            job_id,
            [status for statuses in answers.values() for status in statuses if status.job_id == job_id],
            failed,
            now=time.time(),
            unsent_by=self._identity.request_key,
            orphan_timeouts_s={
                conn_id: self._hook.member(conn_id).settings.orphan_timeout_s if own is None else own
                for conn_id in failed
            },
        )

    def cancel_forerunners(self, job_ids: Sequence[str], *, by: str) -> None:
        """Cancel jobs that the task had before users cleared it, on all clusters that answer."""
        record = self._store.load()
        known = [] if record is None or record.job_id not in job_ids else [record.conn_id, *record.elsewhere]
        at = dict.fromkeys([*self._pool.conn_ids, *(conn_id for conn_id in known if conn_id is not None)])
        _, failed = self._cancel(job_ids, self._hook, at=list(at), by=by)
        self._tell_uncancelled(job_ids[0], failed)

    def _cancel(
        self,
        job_ids: Sequence[str],
        hook: GpuClusterHook,
        *,
        at: Sequence[str],
        by: str,
        request_keys: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, list[JobStatus]], dict[str, GpuClusterError]]:
        """Return what each cluster has said, and why others have not answered."""

        def ask(cluster: Cluster) -> list[JobStatus]:
            return cluster.retrying_for(0).cancel(job_ids, requested_by=by, request_keys=request_keys)

        outcomes = side_by_side(at, ask, members=hook.members, wait_s=_CANCEL_WAIT_S)
        failed = {conn_id: error for conn_id, error in outcomes.items() if isinstance(error, GpuClusterError)}
        return {conn_id: one for conn_id, one in outcomes.items() if not isinstance(one, GpuClusterError)}, failed

    def _tell_uncancelled(self, job_id: str, failed: Mapping[str, GpuClusterError]) -> None:
        for conn_id, error in failed.items():
            event = "GPU job could not be cancelled on a cluster where it may have been"
            self._log.warning(event, job_id=job_id, cluster=conn_id, error=str(error))
