"""
All errors that this provider raises, as one tree.

::

    GpuClusterError
    ├── InvalidJobError              the job is described wrongly; no retry will help
    ├── GpuClusterConnectionError    the cluster could not be reached now
    │   ├── PlacementUnknownError           one that may have the job cannot be asked, so no other may launch it
    │   ├── GpuClusterFaultError            it was reached, and a fault that passes kept it from answering
    │   ├── GpuClusterAuthenticationError   it was reached, and refused this user or key
    │   └── GpuClusterHostKeyError          its host key is unknown or has changed
    ├── GpuClusterSetupError         the cluster is not usable: no Python, root_dir not writable, no GPUs found
    ├── GpuClusterProtocolError      it answered what gpu-run never answers; nothing of that was believed
    ├── StagingError                 code, data or models could not be copied to the job's directory
    │   ├── SourceError                     a source does not exist, or could not be read
    │   ├── ChecksumError                   what arrived is not what was sent
    │   ├── NoSpaceError                    disk full, or quota used up
    │   └── CannotCarryError                a job cannot bring everything along to another cluster
    ├── LaunchError                  the job could not be started
    │   ├── NotEnoughGpusError              it asks for more GPUs than the cluster has
    │   │   └── NoClusterFitsError              no cluster of the pool can ever run it
    │   ├── BudgetExceededError             a budget of GPU-hours that it needs room in is used up
    │   └── JobConflictError                its directory belongs to another job
    │       ├── PlacementOutrankedError         it was placed on another cluster meanwhile
    │       └── PlacementExpiredError           the request has arrived after its last moment to start
    ├── CollectError                 outputs could not be downloaded whole
    └── GpuJobError                  the job ended badly; carries job_id, reason, kind, recovered and more
        ├── GpuJobFailed                    the user's code failed (reason user_error)
        ├── GpuJobOutOfMemory               it needed more host memory than it asked for
        ├── GpuJobGpuOutOfMemory            it needed more GPU memory than there is
        ├── GpuJobTimeLimit                 it ran longer than its time limit
        ├── GpuJobPreempted                 the scheduler stopped it in favour of another job
        ├── GpuJobNodeFailure               the machine it ran on failed
        ├── GpuJobDiskFull                  it ran out of disk space
        ├── GpuJobLaunchFailed              it could not be started on the cluster (environment, run.sh)
        ├── GpuJobLost                      its supervisor vanished without a record
        ├── GpuJobHang                      it neither printed, saved nor computed anything for too long
        ├── GpuJobIdle                      it left its GPUs idle for too long
        ├── GpuJobCheckpointed              it saved and asked to be started again, more often than it may
        ├── GpuJobOrphaned                  nobody asked about it for too long
        └── GpuJobCancelled                 somebody cancelled it

These names are public: use them in Airflow's retry policies.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow.sdk.exceptions import AirflowException

from airflow_provider_gpu_cluster.gpu_run import protocol


class GpuClusterError(AirflowException):
    """
    Base class of every error this provider raises.

    :ivar code: what the program on the cluster calls it; empty if the cluster has not refused anything.
    """

    code = ""


class InvalidJobError(GpuClusterError, ValueError):
    """The job is described wrongly: a bad parameter, both or neither of entry_script and command, and so on."""


class GpuClusterConnectionError(GpuClusterError):
    """The cluster could not be reached: unknown host, refused port, broken connection, no answer in time."""


class PlacementUnknownError(GpuClusterConnectionError):
    """
    A cluster of the pool may have the job and cannot be asked now, so the job may not be launched on another one.

    A task that waits for its job waits on.
    """


class GpuClusterFaultError(GpuClusterConnectionError):
    """
    The cluster was reached, and a fault that passes kept it from answering: of a disk, or of a host that is overloaded.

    A task that waits for its job waits on.
    """


class GpuClusterAuthenticationError(GpuClusterConnectionError):
    """The cluster was reached and refused the user, key or password; or the key could not be read."""


class GpuClusterHostKeyError(GpuClusterConnectionError):
    """The cluster's host key is unknown, or differs from the known one."""


class GpuClusterSetupError(GpuClusterError):
    """The cluster was reached but cannot run jobs: no usable Python, root_dir not writable, GPUs cannot be listed."""


class GpuClusterProtocolError(GpuClusterError):
    """The cluster answered what gpu-run never answers: no JSON, other types, something without end."""


class StagingError(GpuClusterError):
    """Code, data or models could not be copied into the job's directory."""


class SourceError(StagingError):
    """A source does not exist or could not be read: a missing path, a bad git ref, a private repository."""


class ChecksumError(StagingError):
    """The bytes that arrived are not the bytes that were sent, or a file changed while it was being read."""


class NoSpaceError(StagingError):
    """The disk is full, or the quota is used up, on the receiving side."""


class CannotCarryError(StagingError):
    """Something of a job cannot be brought along to another cluster."""


class LaunchError(GpuClusterError):
    """The job could not be started."""


class NotEnoughGpusError(LaunchError):
    """The job asks for more GPUs, or other GPUs, than the cluster has."""


class NoClusterFitsError(NotEnoughGpusError):
    """No cluster of the pool can ever run the job; the message says of each why."""


class BudgetExceededError(LaunchError):
    """A budget of GPU-hours of this month (``gpu_hours_budget`` of the connection) has no room for the job."""


class JobConflictError(LaunchError):
    """The job's directory belongs to another job, or the job cannot be changed while it runs."""


class PlacementOutrankedError(JobConflictError):
    """The job was placed on another cluster of its pool meanwhile; nothing is launched for an earlier choice."""


class PlacementExpiredError(JobConflictError):
    """The request to launch has arrived after its last moment to start, and launches nothing."""


class CollectError(GpuClusterError):
    """Outputs could not be downloaded whole, or one of them leads out of the outputs folder."""


class GpuJobError(GpuClusterError):
    """
    A job ended badly.

    :param message: one readable sentence.
    :param job_id: id of the job.
    :param state: its final state: FAILED, CANCELLED or LOST.
    :param reason: why it ended, one of the reasons in :mod:`airflow_provider_gpu_cluster.gpu_run.protocol`.
    :param kind: how it ended, finer than ``reason``, such as ``missing_module``.
    :param exit_code: exit code of the user's code; None if it did not exit by itself.
    :param log_tail: the last lines that it printed.
    :param recovered: how often the job had gone on by itself before, by reason, such as ``{"preempted": 20}``.
    :param attempt: number of the attempt that ended so; 0 if not known.
    :param cause: what happened, as a sentence; empty if not known.
    :param remedy: what to do about it, as a sentence; empty if not known.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str = "",
        state: str = protocol.FAILED,
        reason: str | None = None,
        kind: str | None = None,
        exit_code: int | None = None,
        log_tail: str = "",
        recovered: Mapping[str, int] | None = None,
        attempt: int = 0,
        cause: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.state = state
        self.reason = reason
        self.kind = kind
        self.exit_code = exit_code
        self.log_tail = log_tail
        self.recovered = dict(recovered or {})
        self.attempt = attempt
        self.cause = cause
        self.remedy = remedy


class GpuJobFailed(GpuJobError):
    """The user's code exited with an error."""


class GpuJobOutOfMemory(GpuJobError):
    """The job used more host memory than its limit, or the kernel killed it because memory ran out."""


class GpuJobGpuOutOfMemory(GpuJobError):
    """The job failed to allocate GPU memory."""


class GpuJobTimeLimit(GpuJobError):
    """The job ran longer than its time limit and was stopped."""


class GpuJobPreempted(GpuJobError):
    """The scheduler stopped the job in favour of another."""


class GpuJobNodeFailure(GpuJobError):
    """The machine the job ran on failed or was shut down."""


class GpuJobDiskFull(GpuJobError):
    """The job could not write because the disk was full or the quota was used up."""


class GpuJobLaunchFailed(GpuJobError):
    """The job could not be started on the cluster, for instance because its Python environment did not build."""


class GpuJobLost(GpuJobError):
    """The job's supervisor vanished without leaving a record: killed, or the host was rebooted."""


class GpuJobHang(GpuJobError):
    """The job neither printed, saved nor computed anything for as long as its ``hang_timeout``."""


class GpuJobIdle(GpuJobError):
    """The job used its GPUs less than ``min_gpu_utilization`` for its whole ``utilization_window``."""


class GpuJobCheckpointed(GpuJobError):
    """The job saved and asked to be started again, more often than ``recover`` allows."""


class GpuJobOrphaned(GpuJobError):
    """Nobody asked about the job for as long as its ``orphan_timeout``."""


class GpuJobCancelled(GpuJobError):
    """Somebody cancelled the job."""


JOB_ERRORS: dict[str, type[GpuJobError]] = {
    protocol.USER_ERROR: GpuJobFailed,
    protocol.OUT_OF_MEMORY: GpuJobOutOfMemory,
    protocol.GPU_OUT_OF_MEMORY: GpuJobGpuOutOfMemory,
    protocol.TIME_LIMIT: GpuJobTimeLimit,
    protocol.PREEMPTED: GpuJobPreempted,
    protocol.NODE_FAILURE: GpuJobNodeFailure,
    protocol.DISK_FULL: GpuJobDiskFull,
    protocol.LAUNCH_FAILED: GpuJobLaunchFailed,
    protocol.REASON_LOST: GpuJobLost,
    protocol.REASON_CANCELLED: GpuJobCancelled,
    protocol.HANG: GpuJobHang,
    protocol.IDLE: GpuJobIdle,
    protocol.CHECKPOINTED: GpuJobCheckpointed,
    protocol.ORPHANED: GpuJobOrphaned,
}
"""The exception class of each reason."""

REPLY_ERRORS: dict[str, type[GpuClusterError]] = {
    protocol.BAD_REQUEST: InvalidJobError,
    protocol.PYTHON_TOO_OLD: GpuClusterSetupError,
    protocol.ROOT_NOT_WRITABLE: GpuClusterSetupError,
    protocol.ROOT_NOT_SAFE: GpuClusterSetupError,
    protocol.GPUS_UNAVAILABLE: GpuClusterSetupError,
    protocol.NO_SPACE: NoSpaceError,
    protocol.SOURCE_ERROR: SourceError,
    protocol.CHECKSUM_MISMATCH: ChecksumError,
    protocol.ENTRY_SCRIPT_MISSING: InvalidJobError,
    protocol.NOT_STAGED: StagingError,
    protocol.NOT_ENOUGH_GPUS: NotEnoughGpusError,
    protocol.JOB_CONFLICT: JobConflictError,
    protocol.PLACEMENT_OUTRANKED: PlacementOutrankedError,
    protocol.PLACEMENT_EXPIRED: PlacementExpiredError,
    protocol.OVER_BUDGET: BudgetExceededError,
    protocol.LAUNCH_REFUSED: LaunchError,
    protocol.NO_SUCH_JOB: LaunchError,
    protocol.UNSAFE_OUTPUT: CollectError,
    protocol.PASSING_FAULT: GpuClusterFaultError,
}
"""The exception class of each error code in a reply; any other code is a plain :class:`GpuClusterError`."""
