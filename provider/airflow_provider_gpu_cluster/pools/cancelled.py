"""Whether a job of a pool was cancelled, if some of its clusters have not answered. No IO."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.pools.placement_record import CHOSEN, PlacementRecord, try_of
from airflow_provider_gpu_cluster.pools.whereabouts import Whereabouts


def check_cancelled(
    record: PlacementRecord | None,
    job_id: str,
    answers: Iterable[JobStatus],
    failed: Mapping[str, Exception],
    *,
    now: float,
    unsent_by: str | None = None,
    orphan_timeouts_s: Mapping[str, float | None] = MappingProxyType({}),
) -> None:
    """
    Return if the clusters that have not answered can have nothing of the job.

    :param record: where it is, as far as its task knows.
    :param answers: what the others have said of it, after they were told to cancel it.
    :param failed: why the rest have not answered, by connection.
    :param now: in seconds since the epoch.
    :param unsent_by: a try of the task of which it is certain that it has only chosen what is noted as chosen.
    :param orphan_timeouts_s: after how long each cluster ends a job about which nobody asks, in seconds.
    :raises GpuClusterConnectionError: one of them may have it; the message says which one, and what becomes of it.
    """
    known = Whereabouts(job_id)
    known.read(record)
    record = known.record
    if record is None:
        return
    may = [conn_id for conn_id in failed if known.why_it_may_be_at(conn_id, now=now) is not None]
    if record.stage == CHOSEN and unsent_by is not None and try_of(record.key) == unsent_by:
        may = [conn_id for conn_id in may if conn_id != record.conn_id]
    if record.conn_id is None and any(_was_here(status) for status in answers):
        # It was launched once, and so it was on none of the others.
        may = [conn_id for conn_id in may if conn_id in record.elsewhere]
    if may:
        why = "; ".join(f"{conn_id}: {failed[conn_id]}" for conn_id in may)
        raise GpuClusterConnectionError(
            f"job {job_id} could not be cancelled on {' and '.join(may)}, where it may wait or run ({why}). "
            f"{_what_ends_it([known.gone_at(name) for name in may], [orphan_timeouts_s.get(name) for name in may])}"
        )


def _was_here(status: JobStatus) -> bool:
    has_ended_before = status.final and status.state is not JobState.CANCELLED
    return status.attempt > 0 and not status.is_elsewhere and not has_ended_before


def _what_ends_it(gone_at: Sequence[float | None], orphan_timeouts_s: Sequence[float | None]) -> str:
    moments = [moment for moment in gone_at if moment is not None]
    if len(moments) == len(gone_at):
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(max(moments)))
        return f"Nobody renews its place there any more, so nothing of it can run there after {until} UTC"
    timeouts_s = [timeout_s for timeout_s in orphan_timeouts_s if timeout_s is not None]
    if len(timeouts_s) == len(orphan_timeouts_s):
        return f"If it runs, it ends itself {max(timeouts_s):g} s after somebody last asked about it (orphan_timeout)"
    return "When that cluster is back, end it there with GpuClusterHook(...).cancel(job_id)"
