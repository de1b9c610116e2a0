"""What people are told about: the kinds of messages, and in which words each begins."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_gpu_cluster import exceptions
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus

# Ends of a job or of its task.
COMPLETED = "completed"
FAILED = "failed"
TIMED_OUT = "timed_out"
RESOURCES_EXHAUSTED = "resources_exhausted"
SYSTEM_ERROR = "system_error"
CANCELLED = "cancelled"
# An end, and while a job runs.
IDLE = "idle"
# While a job waits or runs.
RECOVERED = "recovered"
QUEUED_FOR = "queued_for"
NO_PROGRESS_FOR = "no_progress_for"
TIME_LIMIT_IN = "time_limit_in"

KINDS = (
    COMPLETED,
    FAILED,
    TIMED_OUT,
    RECOVERED,
    IDLE,
    RESOURCES_EXHAUSTED,
    SYSTEM_ERROR,
    CANCELLED,
    QUEUED_FOR,
    NO_PROGRESS_FOR,
    TIME_LIMIT_IN,
)
CONDITIONS = (QUEUED_FOR, NO_PROGRESS_FOR, TIME_LIMIT_IN, RECOVERED, IDLE)
# A warning that a job is idle and its end for that are two events of one attempt.
IDLE_END = "idle_end"
# Added to the event of an end after which Airflow tries the task again.
RETRY = "-retry"


class Opening(NamedTuple):
    """
    How a message begins.

    :param kind: what it tells.
    :param title: the first words of its subject.
    :param verb: what has become of the job, after "The job".
    """

    kind: str
    title: str
    verb: str


_COMPLETED = Opening(COMPLETED, "Completed", "has completed")
_FAILED = Opening(FAILED, "Failed", "has failed")
_OF_REASON = {
    protocol.USER_ERROR: _FAILED,
    protocol.HANG: Opening(FAILED, "Hung", "hung and was stopped"),
    protocol.CHECKPOINTED: Opening(FAILED, "Started again too often", "asked to be started again too often"),
    protocol.TIME_LIMIT: Opening(TIMED_OUT, "Timed out", "has reached its time limit and was stopped"),
    protocol.IDLE: Opening(IDLE, "Stopped as idle", "left its GPUs idle and was stopped"),
    protocol.OUT_OF_MEMORY: Opening(RESOURCES_EXHAUSTED, "Out of memory", "ran out of memory"),
    protocol.GPU_OUT_OF_MEMORY: Opening(RESOURCES_EXHAUSTED, "Out of GPU memory", "ran out of GPU memory"),
    protocol.DISK_FULL: Opening(RESOURCES_EXHAUSTED, "Disk full", "ran out of disk space"),
    protocol.NODE_FAILURE: Opening(SYSTEM_ERROR, "Node failed", "was ended by a failure of its machine"),
    protocol.REASON_LOST: Opening(SYSTEM_ERROR, "Lost", "was lost"),
    protocol.PREEMPTED: Opening(SYSTEM_ERROR, "Preempted", "was preempted"),
    protocol.LAUNCH_FAILED: Opening(SYSTEM_ERROR, "Could not start", "could not start"),
    protocol.ORPHANED: Opening(SYSTEM_ERROR, "Ended as an orphan", "was ended, as nobody asked about it any more"),
    protocol.REASON_CANCELLED: Opening(CANCELLED, "Cancelled", "was cancelled"),
}
_OF_STATE = {
    JobState.SUCCEEDED: _COMPLETED,
    JobState.CANCELLED: _OF_REASON[protocol.REASON_CANCELLED],
    JobState.LOST: _OF_REASON[protocol.REASON_LOST],
}
_OF_CONDITION = {
    RECOVERED: Opening(RECOVERED, "Went on", "has gone on by itself"),
    IDLE: Opening(IDLE, "Idle", "leaves its GPUs idle"),
    QUEUED_FOR: Opening(QUEUED_FOR, "Still waiting", "is still waiting"),
    NO_PROGRESS_FOR: Opening(NO_PROGRESS_FOR, "No progress", "has made no progress"),
    TIME_LIMIT_IN: Opening(TIME_LIMIT_IN, "Time limit near", "will soon reach its time limit"),
}
# Errors of a task before its job has ended; the first that fits counts.
_OF_ERROR: tuple[tuple[type[BaseException], Opening], ...] = (
    (
        exceptions.GpuClusterAuthenticationError,
        Opening(SYSTEM_ERROR, "Login refused", "has failed, as its cluster refused the login"),
    ),
    (
        exceptions.GpuClusterConnectionError,
        Opening(SYSTEM_ERROR, "Cluster out of reach", "has failed, as its cluster could not be reached"),
    ),
    (
        exceptions.GpuClusterSetupError,
        Opening(SYSTEM_ERROR, "Cluster not usable", "has failed, as its cluster cannot run jobs"),
    ),
    (
        exceptions.GpuClusterProtocolError,
        Opening(SYSTEM_ERROR, "Cluster not usable", "has failed, as its cluster gave an answer that made no sense"),
    ),
    (exceptions.NoSpaceError, Opening(RESOURCES_EXHAUSTED, "Disk full", "has failed, as there was no disk space left")),
    (exceptions.LaunchError, Opening(SYSTEM_ERROR, "Could not start", "has failed, as its job could not be started")),
)


def opening_of_end(status: JobStatus) -> Opening:
    """Return how a message begins about a job that has ended."""
    return _OF_STATE.get(status.state) or opening_of_reason(status.reason)


def opening_of_reason(reason: str | None) -> Opening:
    """Return how a message begins about a job that has ended for a reason."""
    return _OF_REASON.get(reason or "", _FAILED)


def opening_of_condition(condition: str) -> Opening:
    """Return how a message begins about something that a job does while it waits or runs."""
    return _OF_CONDITION[condition]


def opening_of_error(error: BaseException | None) -> Opening:
    """Return how a message begins about a task that has failed for something else than the end of its job."""
    return next((opening for kind, opening in _OF_ERROR if isinstance(error, kind)), _FAILED)
