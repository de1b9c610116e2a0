"""GpuJobRetryPolicy."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_provider_gpu_cluster import exceptions
from airflow_provider_gpu_cluster.exceptions import GpuClusterError, GpuJobError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.hooks.airflow_outage import is_outage

if TYPE_CHECKING:
    from airflow.sdk import Context

FIRST_DELAY = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=15)
# With more, the product of any delay would be too large for a timedelta.
_MOST_DOUBLINGS = 16

# Whether a retry may help, by class; of an error's classes, the most special one that is named here counts.
IS_RETRIED: dict[type[GpuClusterError], bool] = {
    exceptions.InvalidJobError: False,
    exceptions.GpuClusterConnectionError: True,
    exceptions.GpuClusterAuthenticationError: False,
    exceptions.GpuClusterHostKeyError: False,
    exceptions.GpuClusterSetupError: False,
    exceptions.GpuClusterProtocolError: True,
    exceptions.StagingError: True,
    exceptions.LaunchError: True,
    exceptions.NotEnoughGpusError: False,
    exceptions.BudgetExceededError: False,
    exceptions.JobConflictError: False,
    exceptions.CollectError: True,
    exceptions.GpuJobFailed: False,
    exceptions.GpuJobOutOfMemory: False,
    exceptions.GpuJobGpuOutOfMemory: False,
    exceptions.GpuJobTimeLimit: False,
    exceptions.GpuJobPreempted: True,
    exceptions.GpuJobNodeFailure: True,
    exceptions.GpuJobDiskFull: True,
    exceptions.GpuJobLaunchFailed: True,
    exceptions.GpuJobLost: True,
    exceptions.GpuJobHang: True,
    exceptions.GpuJobIdle: False,
    exceptions.GpuJobCheckpointed: False,
    exceptions.GpuJobOrphaned: True,
    exceptions.GpuJobCancelled: False,
}
# The same by the code of the cluster's answer, where a class holds both.
IS_RETRIED_BY_CODE = {
    protocol.GPUS_UNAVAILABLE: True,
    protocol.ROOT_NOT_WRITABLE: True,
    protocol.NOT_STAGED: False,
    protocol.NO_SUCH_JOB: False,
    protocol.UNSAFE_OUTPUT: False,
}
# Failures of the job's code that are more likely the machine's.
RETRIED_KINDS = frozenset({"gpu_fault", "gpu_not_found", "gpu_busy", "communication", "network"})


class GpuJobRetryPolicy(RetryPolicy):
    """
    Retries a task when a retry may help: after faults of the infrastructure, and not after those of the user.

    ::

        train = SubmitGpuJobOperator(
            task_id="train",
            code="train_digits",
            entry_script="train.py",
            wait_for_completion=True,
            retries=5,
            retry_policy=GpuJobRetryPolicy(),
        )

    - An error that would come again fails the task at once: bad arguments, a failure of the job's own code, too little
      memory, a wrong key.
    - After a fault that may pass, the task is retried as often as its ``retries`` say, after times that grow.
    - A job goes on by itself after preemptions and the like (``recover``). When it has used that up, or has stopped it,
      the task fails: a retry would only begin the same again.
    - About errors that are not this provider's, the task's own settings decide.

    The page "Recovery" of the documentation has a table of all classes.

    :param delay: time before the first retry; each further one waits twice as long.
    :param longest_delay: the longest such time.
    """

    def __init__(self, *, delay: timedelta = FIRST_DELAY, longest_delay: timedelta = LONGEST_DELAY) -> None:
        for name, value in (("delay", delay), ("longest_delay", longest_delay)):
            if not isinstance(value, timedelta) or value < timedelta(0):
                raise ValueError(f"GpuJobRetryPolicy: {name}={value!r} is not valid; valid is a timedelta from 0 up")
        self.delay = delay
        self.longest_delay = max(delay, longest_delay)

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide about a task that has failed with this error."""
        if is_outage(exception):
            why, is_retried = "Airflow's API server did not answer", True
        elif not isinstance(exception, GpuClusterError):
            return RetryDecision.default()
        elif _is_recovered(exception):
            why, is_retried = "the job has gone on by itself as often as it may", False
        else:
            known = _may_pass(exception)
            if known is None:
                return RetryDecision.default()
            why, is_retried = type(exception).__name__, known
        if not is_retried:
            return RetryDecision.fail(reason=f"{why}: a retry would not help")
        return RetryDecision.retry(self._delay(try_number, max_tries, context), reason=f"{why}: may pass")

    def _delay(self, try_number: int, max_tries: int, context: Context | None) -> timedelta:
        # After a clear, tries are counted on, and max_tries has grown by as many.
        task = context.get("task") if context else None
        retries: int = max_tries if task is None else task.retries or 0
        used = min(max(retries - (max_tries - try_number + 1), 0), _MOST_DOUBLINGS)
        delay: timedelta = min(self.delay * 2**used, self.longest_delay)
        return delay

    def serialize(self) -> dict[str, Any]:
        """Return the policy as plain JSON values."""
        return {"delay": self.delay.total_seconds(), "longest_delay": self.longest_delay.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> GpuJobRetryPolicy:
        """Make the policy from these values."""
        return cls(**{name: timedelta(seconds=data[name]) for name in ("delay", "longest_delay")})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((self.delay, self.longest_delay))


def _is_recovered(error: GpuClusterError) -> bool:
    """Return whether a job has ended in a way after which it had gone on by itself, and does so no more."""
    return isinstance(error, GpuJobError) and error.recovered.get(error.reason or "", 0) > 0


def _may_pass(error: GpuClusterError) -> bool | None:
    """Return whether a retry may help; None if that is not known."""
    if error.code in IS_RETRIED_BY_CODE:
        return IS_RETRIED_BY_CODE[error.code]
    if isinstance(error, GpuJobError) and error.kind in RETRIED_KINDS:
        return True
    if isinstance(error, exceptions.SourceError) and isinstance(error.__cause__, (FileNotFoundError, PermissionError)):
        return False
    return next((IS_RETRIED[one] for one in type(error).__mro__ if one in IS_RETRIED), None)
