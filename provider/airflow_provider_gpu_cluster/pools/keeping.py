"""Keeps the place of a job of a pool while a task waits for it: renews it, fails over, moves it, and follows it."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol import placement as words
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.holding import ClockTimes, Holding, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placement, PlaceReply, Renewal, RenewReply
    from airflow_provider_gpu_cluster.jobs.submission import Submission
    from airflow_provider_gpu_cluster.logs.job_log import Log
    from airflow_provider_gpu_cluster.pools.placement_record import PlacementRecord, PlacementStore

log = logging.getLogger(__name__)

# Pauses between two tries: to tell a cluster that the job is elsewhere, to place the job anew, and to renew its place.
TELL_EVERY_S = 30.0
PLACE_EVERY_S = 10.0
RENEW_AGAIN_S = 5.0
# At most how often a move is thought about while nothing has changed.
MOVE_EVERY_S = 60.0


class PlaceMember(Protocol):
    """What is asked of a cluster of the pool here."""

    def retrying_for(self, seconds: float) -> PlaceMember:
        """Return the same cluster, with another time to keep trying to reach it."""
        ...

    def place(self, job_id: str, placement: Placement, kind: str, *, by: str = "") -> PlaceReply:
        """Tell it which cluster has the job."""
        ...

    def renew(self, jobs: Sequence[Renewal]) -> RenewReply:
        """Renew placements."""
        ...


class Moved(Protocol):
    """What has become of a job that was moved."""

    @property
    def submission(self) -> Submission:
        """How it got there."""
        ...

    @property
    def record(self) -> PlacementRecord:
        """Where it is."""
        ...


class Moving(Protocol):
    """Moves a job that waits, if it would start much sooner elsewhere."""

    def look(self, record: PlacementRecord, status: JobStatus) -> Moved | None:
        """
        Return what has become of it if it was moved.

        :raises WorkerNeeded: it should be, and only a worker can do so.
        """
        ...


PlaceAgain = Callable[[], "tuple[Submission, PlacementRecord]"]
"""Finds out where a job is, or chooses a cluster and launches it there, by what the store says may have it."""


class WorkerNeeded(Exception):
    """Only a worker can launch the job on another cluster, as it has the job's files."""


class JobWentElsewhere(Exception):
    """The job is on another cluster now."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(f"the job is on {submission.handle.gpu_cluster_conn_id} now")
        self.submission = submission


class KeepsPlace(Protocol):
    """Keeps the place of a job while a task waits for it, see :class:`Keeper`."""

    def in_contact(self, member: PlaceMember, status: JobStatus) -> None:
        """Do what is due while the cluster answers."""
        ...

    def out_of_reach(self) -> None:
        """Do what is due while the cluster cannot be reached."""
        ...


class Keeper:
    """
    Keeps the place of one job. Its methods block, and are called from one thread at a time.

    :param record: where the job is.
    :param store: keeps the record.
    :param open_member: returns a cluster of the pool, by its connection.
    :param place_again: finds or launches the job; it saves the record that it returns.
    :param moves: moves it while it waits; None for never.
    :param failover_after_s: for how long its cluster has to be out of reach before it is launched elsewhere, in
        seconds; None for never.
    :param by: in words, who asks, for the records of clusters.
    :param here: where the task looks for the job, if that may be another cluster: one who has begun to move it may be
        gone.
    """

    def __init__(
        self,
        record: PlacementRecord,
        store: PlacementStore,
        *,
        open_member: Callable[[str], PlaceMember],
        place_again: PlaceAgain,
        moves: Moving | None = None,
        failover_after_s: float | None,
        by: str,
        log: Log,
        here: str | None = None,
        now: Callable[[], ClockTimes] = moment,
    ) -> None:
        self._store = store
        self._open_member = open_member
        self._place_again = place_again
        self._moves = moves
        self._failover_after_s = failover_after_s
        self._by = by
        self._log = log
        self._now = now
        self._hold(record)
        self._here = record.conn_id if here is None else here
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._telling: set[str] = set()
        self._tell_at = self._place_at = self._renew_at = self._move_at = -math.inf
        self._thought_about: object = None
        self._said = ""

    @property
    def record(self) -> PlacementRecord:
        """Where the job is."""
        return self._holding.record

    @property
    def may_have_it(self) -> list[str]:
        """The clusters on which something of the job may wait or run, or may be on its way, the chosen one first."""
        record, latest = self.record, self._store.latest
        # Of a launch elsewhere that was begun, and of which no more is known yet.
        begun = () if latest is None or latest.job_id != record.job_id else latest.may_have_it
        return list(dict.fromkeys((*record.may_have_it, *begun)))

    @property
    def every_s(self) -> float | None:
        """How often the place is renewed, in seconds; None for a place that needs no renewal."""
        return None if math.isinf(self._holding.every_s) else self._holding.every_s

    def _hold(self, record: PlacementRecord) -> None:
        self._holding = Holding(record, failover_after_s=self._failover_after_s, now=self._now())

    def is_due(self, status: JobStatus | None, *, is_out_of_reach: bool) -> bool:
        """Return whether :meth:`in_contact` or :meth:`out_of_reach` has something to do. It does not block."""
        now = self._now()
        if is_out_of_reach:
            self._holding.unreached(now)
            return self._is_astray or self._holding.may_fail_over(now)
        if status is None or (status.final and not status.is_elsewhere):
            return False
        self._holding.note_orphan_timeout(status.orphan_timeout_s)
        is_lost = (status.is_elsewhere or self._is_astray) and now.steady >= self._place_at
        is_to_tell = bool(self.record.elsewhere) and (now.steady >= self._tell_at or not self._told.empty())
        return is_lost or is_to_tell or self._is_renewal_due(now) or self._may_move(status, now)

    def in_contact(self, member: PlaceMember, status: JobStatus) -> None:
        """
        Do what is due while the cluster answers.

        :param member: the cluster.
        :param status: what it has said about the job.
        :raises JobWentElsewhere: the job is on another cluster.
        :raises WorkerNeeded: it could be, and only a worker can see to it.
        """
        self._holding.reached()
        with self._waiting_on():
            if status.is_elsewhere or self._is_astray:
                self._find(is_nowhere=status.final)
            elif not status.final:
                self._keep(member, status)

    @property
    def _is_astray(self) -> bool:
        """Whether the task looks for the job on another cluster than the one that was chosen last."""
        return self.record.conn_id != self._here

    def _keep(self, member: PlaceMember, status: JobStatus) -> None:
        now = self._now()
        self._holding.note_orphan_timeout(status.orphan_timeout_s)
        if self._is_renewal_due(now):
            self._renew_at = now.steady + min(RENEW_AGAIN_S, self._holding.every_s / 2)
            if not self._renew(member):
                self._find()
                return
        self._tell_the_others()
        self._move(status)

    def out_of_reach(self) -> None:
        """
        Do what is due while the cluster cannot be reached.

        :raises JobWentElsewhere: the job was launched on another cluster.
        :raises WorkerNeeded: it could be, and only a worker can see to it.
        """
        now = self._now()
        self._holding.unreached(now)
        with self._waiting_on():
            if self._is_astray:
                self._find()
            elif self._holding.may_fail_over(now) and now.steady >= self._place_at:
                self._fail_over(now)

    def _fail_over(self, now: ClockTimes) -> None:
        known, stored = self.record, self._stored()
        if stored != known:
            # Somebody else waits for the same job, and is in contact, or has launched it elsewhere.
            self._hold(stored)
            self._holding.unreached(now)
            if (stored.epoch, stored.key) != (known.epoch, known.key):
                self._find()
            return
        self._log.warning(
            "GPU cluster is out of reach, and the job is surely gone from there; launching it on another cluster",
            job_id=stored.job_id,
            cluster=stored.conn_id,
        )
        self._go()

    def _stored(self) -> PlacementRecord:
        stored = self._store.load()
        return self.record if stored is None or stored.job_id != self.record.job_id else stored

    @contextlib.contextmanager
    def _waiting_on(self) -> Iterator[None]:
        """Let no fault that passes end the wait, such as one of Airflow, which keeps the record."""
        try:
            yield
        except (GpuClusterError, JobWentElsewhere, WorkerNeeded):
            raise
        except Exception as error:
            self._tell(f"GPU job's place in its pool cannot be kept now, trying again: {error}")

    def _find(self, *, is_nowhere: bool = False) -> None:
        if self._now().steady >= self._place_at:
            self._go(is_nowhere=is_nowhere)

    def _go(self, *, is_nowhere: bool = False) -> None:
        """
        Go on where the job is, or will be.

        :param is_nowhere: whether waiting on would wait for nothing.
        """
        self._place_at = self._now().steady + PLACE_EVERY_S
        try:
            submission, placed = self._place_again()
        except GpuClusterError as error:
            if is_nowhere and not isinstance(error, GpuClusterConnectionError):
                raise
            self._tell(f"GPU job cannot be placed now, waiting on: {error}")
            return
        self._take(submission, placed)

    def _take(self, submission: Submission, record: PlacementRecord) -> None:
        self._hold(record)
        self._tell_at = self._place_at = -math.inf
        before, self._here = self._here, submission.handle.gpu_cluster_conn_id
        if self._here != before:
            raise JobWentElsewhere(submission)

    # -- renewing

    def _is_renewal_due(self, now: ClockTimes) -> bool:
        return now.steady >= self._renew_at and self._holding.is_renewal_due(now)

    def _renew(self, member: PlaceMember) -> bool:
        """Move the date on; return whether the placement is still the highest there, as far as is known."""
        holding = self._holding
        try:
            if holding.start_by_there(self._now()) is None:
                reply = member.renew([])
                holding.note_clock(reply["now"], self._now())
            now = self._now()
            stored = self._stored()
            if (stored.epoch, stored.key) > (holding.record.epoch, holding.record.key):
                return False
            record = holding.renewal(now)
            if record != holding.record:
                self._store.save(record)
                holding.dated(record, now)
            renewal: Renewal = {
                "job_id": record.job_id,
                "epoch": record.epoch,
                "key": record.key,
                "start_by": holding.start_by_there(now),
            }
            reply = member.renew([renewal])
        except GpuClusterError as error:
            self._tell(f"GPU job's place could not be renewed now, trying again: {error}")
            return True
        now = self._now()
        holding.note_clock(reply["now"], now)
        if all(reply["jobs"]):
            holding.renewed(now)
            self._said = ""
            return True
        return False

    # -- moving

    def _may_move(self, status: JobStatus, now: ClockTimes) -> bool:
        if self._moves is None or status.state is not JobState.QUEUED:
            return False
        return now.steady >= self._move_at or (status.queue_place, status.expected_start) != self._thought_about

    def _move(self, status: JobStatus) -> None:
        now = self._now()
        if not self._may_move(status, now):
            return
        assert self._moves is not None
        self._move_at, self._thought_about = now.steady + MOVE_EVERY_S, (status.queue_place, status.expected_start)
        try:
            moved = self._moves.look(self.record, status)
        except GpuClusterError as error:
            self._tell(f"GPU job was not moved: {error}")
            # A move that was begun is in the store.
            self._hold(self._stored())
            if self.record.conn_id != self._here:
                self._find()
            return
        if moved is not None:
            self._take(moved.submission, moved.record)

    # -- telling those that may have had it

    def _tell_the_others(self) -> None:
        """Tell clusters that were out of reach that the job is elsewhere, in other threads, as soon as they answer."""
        now = self._now()
        while not self._told.empty():
            conn_id = self._told.get()
            elsewhere = {name: one for name, one in self.record.elsewhere.items() if name != conn_id}
            record = replace(self.record, elsewhere=elsewhere)
            self._store.save(record)
            self._holding.dated(record, now)
        if not self.record.elsewhere or now.steady < self._tell_at:
            return
        self._tell_at = now.steady + TELL_EVERY_S
        for conn_id in set(self.record.elsewhere) - self._telling:
            self._telling.add(conn_id)
            threading.Thread(target=self._tell_end, args=(conn_id, placement_of(self.record)), daemon=True).start()

    def _tell_end(self, conn_id: str, placement: Placement) -> None:
        try:
            member = self._open_member(conn_id).retrying_for(0)
            reply = member.place(self.record.job_id, placement, words.END, by=self._by)
            if reply["outcome"] in (words.FENCED, words.ENDED):
                self._told.put(conn_id)
        except Exception as error:
            # It is told later, or by the next try.
            log.debug("%s cannot be told yet that job %s is elsewhere: %s", conn_id, self.record.job_id, error)
        finally:
            self._telling.discard(conn_id)

    def _tell(self, event: str) -> None:
        if event != self._said:
            self._said = event
            self._log.warning(event, job_id=self.record.job_id)


def placement_of(record: PlacementRecord) -> Placement:
    """Return the placement of a record, without its date, for a cluster that is not the chosen one."""
    placement: Placement = {"epoch": record.epoch, "key": record.key, "members": list(record.members)}
    if record.conn_id is not None:
        placement["conn_id"] = record.conn_id
    return placement
