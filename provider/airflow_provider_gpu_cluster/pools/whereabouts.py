"""What is known of where a job may be: which clusters have to be asked before it is launched on another. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.pools.holding import gone_at
from airflow_provider_gpu_cluster.pools.placement_record import (
    CHOSEN,
    ENDED,
    Elsewhere,
    Mark,
    PlacementRecord,
    Rank,
)

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.placement import Placed, PlaceReply

# Not lower than any other key: what has only an epoch is clear when all of that epoch is.
_LAST_KEY = "\U0010ffff"


@dataclass
class Whereabouts:
    """
    What one process knows of the placements of a job.

    :param job_id: the job.
    :param record: what the task's store says.
    :param told: for each cluster, the highest choice of it that other clusters were told of.
    :param unsent: choices of this process after which nothing was sent that could launch the job.
    :param clear: by cluster, the choice up to which it has said that it has nothing.
    :param highest_epoch: of all placements that are known.
    """

    job_id: str
    record: PlacementRecord | None = None
    told: dict[str, Rank] = field(default_factory=dict)
    unsent: set[Rank] = field(default_factory=set)
    clear: dict[str, Rank] = field(default_factory=dict)
    highest_epoch: int = 0

    def read(self, record: PlacementRecord | None) -> None:
        """Take what the store says; the record of another job is of before a clear, and says nothing of this one."""
        self.record = record if record is not None and record.job_id == self.job_id else None
        if self.record is not None:
            self.highest_epoch = max(self.highest_epoch, self.record.epoch)
            for conn_id, rank in self.record.clear.items():
                self.note_clear(conn_id, rank)

    def next_epoch(self) -> int:
        """Return the epoch of another choice."""
        self.highest_epoch += 1
        return self.highest_epoch

    def note_told(self, reply: Placed | PlaceReply) -> None:
        """Take what a cluster was told of placements of this job."""
        for placement in [*([reply["placement"]] if "placement" in reply else []), *reply.get("chosen", ())]:
            rank = (placement["epoch"], placement["key"])
            self.highest_epoch = max(self.highest_epoch, rank[0])
            conn_id = placement.get("conn_id")
            if conn_id is not None and rank not in self.unsent:
                self.told[conn_id] = max(self.told.get(conn_id, rank), rank)

    def note_clear(self, conn_id: str, rank: Rank) -> None:
        """Take it that a cluster has said that it has nothing of a choice up to this one, and never will."""
        self.clear[conn_id] = max(self.clear.get(conn_id, rank), rank)

    def named(self) -> set[str]:
        """Return the clusters that the job may be on, besides those of the pool."""
        found = set(self.told)
        if self.record is not None:
            found.update(self.record.elsewhere)
            found.update(self.record.members if self.record.conn_id is None else [self.record.conn_id])
        return found

    def why_it_may_be_at(self, conn_id: str, *, now: float, mark: Mark | None = None) -> str | None:
        """
        Return why the job may be on a cluster that does not answer, as the end of a sentence; None if it cannot.

        :param now: in seconds since the epoch, by the clock of this side.
        :param mark: of this cluster, in the store.
        """
        told = self.told.get(conn_id)
        if told is not None and not self._is_settled(conn_id, told, now):
            return "another cluster was told that it was launched there"
        if mark is not None and mark.job_id in (self.job_id, "") and not self._is_settled(conn_id, mark.rank, now):
            return "another try has chosen it"
        record = self.record
        if record is None:
            return None
        if record.conn_id is None and record.stage != ENDED and conn_id in record.members:
            return None if self._is_clear(conn_id, record.rank) else "a trigger was to launch it, perhaps there"
        if conn_id in record.elsewhere and not self._is_settled(
            conn_id, (record.elsewhere[conn_id].epoch, _LAST_KEY), now
        ):
            return "it was launched there before"
        if conn_id == record.conn_id and not self._is_settled(conn_id, record.rank, now):
            return "it was launched there, or was about to be"
        return None

    def _is_settled(self, conn_id: str, rank: Rank, now: float) -> bool:
        """Return whether nothing of a choice can be on its cluster any more."""
        if rank in self.unsent or self._is_clear(conn_id, rank):
            return True
        record = self.record
        if record is None:
            return False
        if conn_id == record.conn_id and rank[0] <= record.epoch:
            if rank == record.rank and (record.stage == ENDED or (record.stage == CHOSEN and self._is_own(record))):
                return True
            return _is_over(gone_at(record), now)
        left = record.elsewhere.get(conn_id)
        return left is not None and rank[0] <= left.epoch and _is_over(left.gone_at, now)

    def _is_clear(self, conn_id: str, rank: Rank) -> bool:
        return conn_id in self.clear and self.clear[conn_id] >= rank

    def _is_own(self, record: PlacementRecord) -> bool:
        return record.rank in self.unsent

    def elsewhere(self, conn_id: str) -> Mapping[str, Elsewhere]:
        """Return what else may have the job when it is launched on this cluster."""
        record = self.record
        if record is None:
            return {}
        found = dict(record.elsewhere)
        if record.conn_id is not None and record.stage != ENDED and not self._is_own(record):
            found[record.conn_id] = Elsewhere(record.epoch, gone_at(record))
        return {
            name: one
            for name, one in found.items()
            if name != conn_id and not self._is_clear(name, (one.epoch, _LAST_KEY))
        }

    def gone_at(self, conn_id: str) -> float | None:
        """Return when nothing of the job can be on a cluster any more, even if that does not answer until then."""
        record = self.record
        if record is None:
            return None
        if conn_id == record.conn_id:
            return gone_at(record)
        left = record.elsewhere.get(conn_id)
        return None if left is None else left.gone_at

    def with_what_is_clear(self, record: PlacementRecord) -> PlacementRecord:
        """Return a record with what clusters have said, and without what that settles."""
        elsewhere = {
            name: one for name, one in record.elsewhere.items() if not self._is_clear(name, (one.epoch, _LAST_KEY))
        }
        return replace(record, clear=dict(self.clear), elsewhere=elsewhere)


def _is_over(moment: float | None, now: float) -> bool:
    return moment is not None and now > moment
