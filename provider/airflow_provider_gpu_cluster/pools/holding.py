"""
When a placement is to be renewed, and when what was launched under it is surely gone. Pure decisions, no IO.

A cluster starts nothing under a placement after its ``start_by``, and ends what runs there when it was not renewed for
its ``orphan_timeout``. The side that waits for the job moves that date on for as long as it is in contact: first in its
own store, then on the cluster. So the date that the store knows is never earlier than the one that the cluster goes by,
and where the cluster is out of reach, the store alone says when the job cannot be there any more.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, PlacementRecord

# How often a placement is renewed before it would run out.
RENEWALS = 3
# How often in its orphan_timeout, which counts from renewals.
_TIMES = 4
# Clocks of two machines may differ by so much in their rate, and by so much in how they were set, in seconds.
DRIFT = 0.01
MARGIN_S = 10.0


@dataclass(frozen=True)
class ClockTimes:
    """
    A moment on the two clocks of a machine.

    :param wall: in seconds since the epoch; somebody may set it.
    :param steady: in seconds since any moment; it only goes on, and ends with the process.
    """

    wall: float
    steady: float


def moment() -> ClockTimes:
    """Return the present moment."""
    return ClockTimes(time.time(), time.monotonic())


def gone_after_s(failover_after_s: float, orphan_timeout_s: float | None, grace_s: float) -> float | None:
    """
    Return for how long after its ``start_by`` a job may still run on a cluster where nobody renews it, in seconds.

    It has room for what clocks may differ by.

    :param failover_after_s: how far ahead each renewal sets ``start_by``.
    :param orphan_timeout_s: after how long the cluster ends the job then.
    :param grace_s: how long the job may take to end.
    :return: None if it may run for ever.
    """
    if orphan_timeout_s is None:
        return None
    # What the cluster's clock is known by may be half of failover_after old, see Holding.
    measured_s = 1.5 * failover_after_s + orphan_timeout_s + grace_s
    return orphan_timeout_s + grace_s + MARGIN_S + DRIFT * measured_s


def gone_at(record: PlacementRecord) -> float | None:
    """
    Return when it is sure that nothing of a placement waits or runs on its cluster, in seconds since the epoch.

    :return: None if only the cluster can say.
    """
    if record.start_by is None or record.gone_after_s is None:
        return None
    return record.start_by + record.gone_after_s


def while_deferred(record: PlacementRecord, *, may_launch: bool) -> PlacementRecord:
    """
    Return what a task's own store says while a trigger waits, which renews the placement and cannot write there.

    :param may_launch: whether the trigger may also launch the job elsewhere.
    """
    if may_launch:
        return replace(record, conn_id=None, stage=CHOSEN, start_by=None, gone_after_s=None)
    return replace(record, start_by=None)


def is_newer(record: PlacementRecord, other: PlacementRecord) -> bool:
    """Return whether a record is of a later choice than another one for the same job, or has a later date."""
    return record.rank > other.rank or (
        record.rank == other.rank and (record.start_by or 0.0) > (other.start_by or 0.0)
    )


class Holding:
    """
    Decides what is due for one placement.

    :param record: as the store has it.
    :param failover_after_s: how far ahead each renewal sets ``start_by``; None for a placement without a date.
    :param now: the present moment.
    """

    def __init__(self, record: PlacementRecord, *, failover_after_s: float | None, now: ClockTimes) -> None:
        self.record = record
        self._failover_after_s = failover_after_s
        # Of this process only: when it has learned of the present start_by, and for how long that was to come.
        self._dated_at = now
        self._ahead: tuple[float, float] | None = None
        self._renewed_at = now.steady
        self._lost_at: float | None = None
        self._every_s = math.inf if failover_after_s is None else failover_after_s / RENEWALS

    @property
    def _is_dated(self) -> bool:
        return self._failover_after_s is not None and self.record.start_by is not None

    @property
    def every_s(self) -> float:
        """How often the placement is renewed, in seconds."""
        return self._every_s

    def note_orphan_timeout(self, orphan_timeout_s: float | None) -> None:
        """Note after how long without a renewal the cluster ends the job, if it does."""
        if orphan_timeout_s is not None:
            self._every_s = min(self._every_s, orphan_timeout_s / _TIMES)

    def is_renewal_due(self, now: ClockTimes) -> bool:
        """Return whether the placement is to be renewed, if its cluster is in contact."""
        if not self._is_dated:
            return False
        assert self._failover_after_s is not None
        is_long_ago = now.steady >= self._renewed_at + self._every_s
        return is_long_ago or self._is_date_due(now, self._failover_after_s / RENEWALS)

    def _is_date_due(self, now: ClockTimes, every_s: float) -> bool:
        """Return whether the date comes nearer than it may."""
        assert self._failover_after_s is not None
        assert self.record.start_by is not None
        return self.record.start_by - now.wall <= self._failover_after_s - every_s

    def renewal(self, now: ClockTimes) -> PlacementRecord:
        """
        Return the record of a renewal: first the store gets it, then :meth:`dated`, then the cluster.

        It is the present one if only the cluster has to hear something.
        """
        assert self._failover_after_s is not None
        if not self._is_date_due(now, self._failover_after_s / RENEWALS):
            return self.record
        return replace(self.record, start_by=max(self.record.start_by or 0.0, now.wall + self._failover_after_s))

    def dated(self, record: PlacementRecord, now: ClockTimes) -> None:
        """Note that the store has a record with another date."""
        self.record, self._dated_at = record, now

    def note_clock(self, there: float, now: ClockTimes) -> None:
        """
        Note what the time was on the cluster when it answered.

        :param there: by its clock, in seconds since the epoch.
        :param now: when the answer came.
        """
        self._ahead = (there - now.wall, now.steady)

    def start_by_there(self, now: ClockTimes) -> float | None:
        """
        Return the date by the clock of the cluster: a moment that is not later than by the own one.

        :return: None if that clock is not known, or was not looked at for long.
        """
        if self._ahead is None or self._failover_after_s is None or self.record.start_by is None:
            return None
        ahead_s, known_at = self._ahead
        if now.steady - known_at > self._failover_after_s / 2:
            return None
        return self.record.start_by + ahead_s

    def reached(self) -> None:
        """Note that the cluster has answered."""
        self._lost_at = None

    def renewed(self, now: ClockTimes) -> None:
        """Note that the cluster has accepted a renewal."""
        self._renewed_at = now.steady

    def unreached(self, now: ClockTimes) -> None:
        """Note that the cluster could not be reached."""
        if self._lost_at is None:
            self._lost_at = now.steady

    def may_fail_over(self, now: ClockTimes) -> bool:
        """
        Return whether the job may be launched elsewhere: its cluster is out of reach for long enough, and what was
        launched there is surely gone. Then load the record again, and see that its date is still this one.
        """
        gone = gone_at(self.record)
        if not self._is_dated or gone is None or self._lost_at is None:
            return False
        assert self._failover_after_s is not None
        if now.steady < self._lost_at + self._failover_after_s or now.wall <= gone:
            return False
        # Somebody may have set the wall clock forward since.
        return now.steady - self._dated_at.steady > gone - self._dated_at.wall


def start_by_there(start_by: float | None, *, there_at_reply: float, own_at_reply: float) -> float | None:
    """
    Return a date by the clock of a cluster, never later than by the own one.

    :param there_at_reply: the time there when it made a reply.
    :param own_at_reply: the time here when that came.
    """
    return None if start_by is None else start_by + (there_at_reply - own_at_reply)
