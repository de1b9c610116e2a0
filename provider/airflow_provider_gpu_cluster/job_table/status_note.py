"""Notes what a cluster says of a job that somebody watches, so that the table knows it, too."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from airflow.utils.session import create_session

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.job_table.facts import AttemptFacts, JobFacts, StandingFacts
from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.recording import write
from airflow_provider_gpu_cluster.job_table.storable import count, json_object, moment, number, text
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

log = logging.getLogger(__name__)

WRITE_EVERY_S = 5.0
# Of jobs that go on, the last state that was told is all that is kept until it is written.
_MOST_WAITING = 10_000


def facts_of(handle: JobHandle, status: JobStatus) -> JobFacts:
    """Return what a status tells."""
    used = number(status.usage.get("gpu_seconds_used"))
    gpu_seconds = number(status.gpu_seconds)
    is_array = handle.array_size is not None
    # What the elements of an array have used, their own ends tell.
    attempts = () if is_array or gpu_seconds is None or not status.attempt else (_attempt(status, gpu_seconds, used),)
    return JobFacts(
        handle.gpu_cluster_conn_id,
        handle.job_id,
        known={"engine": text(handle.engine, 20), "job_dir": text(handle.job_dir, 4000), "gpus": handle.gpus},
        standing=standing_of(status),
        attempts=attempts,
        shown={"progress": json_object(status.progress)},
    )


def standing_of(status: JobStatus) -> StandingFacts | None:
    """Return how far a job is, as its status tells; None if that could not be determined."""
    if status.state is JobState.UNKNOWN:
        return None
    return StandingFacts(
        attempt=count(status.attempt) or 0,
        state=str(status.state),
        reason=text(status.reason, 50),
        kind=text(status.kind, 100),
        # What follows the first line was printed by the job.
        message=text(status.message.partition("\n")[0], 1000),
        host=text(status.host, 250),
        started_at=moment(status.started_at),
        ended_at=moment(status.ended_at),
    )


def _attempt(status: JobStatus, gpu_seconds: float, used: float | None) -> AttemptFacts:
    return AttemptFacts(
        element=-1,
        attempt=status.attempt,
        state=str(status.state),
        reason=text(status.reason, 50),
        ended_at=moment(status.ended_at),
        gpu_seconds=gpu_seconds,
        used_gpu_seconds=used,
    )


class StatusNotes:
    """
    Writes statuses into the table in the background, together with others of the same seconds.

    :param write_every_s: how often to write at most, in seconds.
    """

    def __init__(self, *, write_every_s: float = WRITE_EVERY_S) -> None:
        self._write_every_s = write_every_s
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], JobFacts] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gpu-job-table")
        self._timer: threading.Timer | None = None

    def note(self, handle: JobHandle, status: JobStatus) -> None:
        """Have a status written. This neither waits nor fails."""
        try:
            facts = facts_of(handle, status)
        except Exception as error:
            log.warning("the state of job %s cannot be noted in Airflow's database: %s", handle.job_id, words_of(error))
            return
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[facts.conn_id, facts.job_id] = facts
            if self._timer is None:
                self._timer = threading.Timer(self._write_every_s, self._pool.submit, [self.write])
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write what waits now."""
        with self._lock:
            facts, self._waiting, self._timer = list(self._waiting.values()), {}, None
        try:
            with create_session(scoped=False) as session:
                is_there = what_is_missing(session) is None
            if is_there:
                write(facts)
        except Exception as error:
            # The ledger tells it later.
            log.warning("could not note the state of jobs in Airflow's database: %s", words_of(error))


_notes = StatusNotes()


def note_status(handle: JobHandle, status: JobStatus) -> None:
    """Have the status of a job written into the table, within seconds. This neither waits nor fails."""
    _notes.note(handle, status)
